#include "client/server_state.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/output.h"

namespace pregate {
namespace {

// "30.5 B", "7.9 M", "512".
std::string ShortCount(uint64_t count) {
  if (count >= 1'000'000'000) return absl::StrFormat("%.1f B", static_cast<double>(count) / 1e9);
  if (count >= 1'000'000) return absl::StrFormat("%.1f M", static_cast<double>(count) / 1e6);
  return absl::StrCat(count);
}

}  // namespace

std::string FormatModels(const v1::ListModelsResponse& response) {
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "FAMILY", "DTYPE", "PARAMETERS", "LAYERS", "EXPERTS", "CONTEXT", "CHAT"}};
  for (const v1::Model& model : response.models()) {
    rows.push_back({model.name(),
                    model.family(),
                    model.dtype(),
                    ShortCount(model.num_parameters()),
                    absl::StrCat(model.num_layers()),
                    absl::StrCat(model.num_experts_per_token(), " of ", model.num_experts()),
                    absl::StrCat(model.max_context()),
                    model.has_chat_template() ? "yes" : "no"});
  }
  return FormatTable(rows);
}

std::string FormatStats(const v1::GetServerInfoResponse& info, const v1::GetLoadResponse& load) {
  const absl::Duration uptime = absl::Seconds(std::floor(info.uptime_seconds()));
  return FormatTable(
      {{"server",
        absl::StrCat(info.version(),
                     info.commit().empty() ? "" : absl::StrCat(" (", info.commit(), ")"),
                     ", up ",
                     absl::FormatDuration(uptime))},
       {"model",
        info.model().empty()
            ? "loading"
            : absl::StrCat(info.model(), ", ", info.dtype(), " on ", info.device())},
       {"running", absl::StrCat(load.requests_running(), " of ", load.max_running(), " requests")},
       {"waiting", absl::StrCat(load.requests_waiting(), " of ", load.max_queued(), " requests")},
       {"KV cache",
        absl::StrCat(load.kv_blocks_used(), " of ", load.kv_blocks_total(), " blocks")}});
}

}  // namespace pregate
