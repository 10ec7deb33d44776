#include "client/server_state.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/output.h"
#include "core/base/bytes.h"

namespace pregate {
namespace {

// "30.5 B", "7.9 M", "512".
std::string ShortCount(uint64_t count) {
  if (count >= 1'000'000'000) return absl::StrFormat("%.1f B", static_cast<double>(count) / 1e9);
  if (count >= 1'000'000) return absl::StrFormat("%.1f M", static_cast<double>(count) / 1e6);
  return absl::StrCat(count);
}

// "61.3 % hits, 8.0 % late, 30.7 % misses".
std::string Rates(const v1::ExpertLookups& lookups) {
  const auto all = static_cast<double>(lookups.hits() + lookups.late_hits() + lookups.misses());
  if (all == 0) return "none yet";
  return absl::StrFormat("%.1f %% hits, %.1f %% late, %.1f %% misses",
                         100.0 * static_cast<double>(lookups.hits()) / all,
                         100.0 * static_cast<double>(lookups.late_hits()) / all,
                         100.0 * static_cast<double>(lookups.misses()) / all);
}

std::string Slots(const v1::GetExpertCacheResponse& cache) {
  const uint32_t num_experts = cache.num_layers() * cache.num_experts();
  if (cache.unified_memory()) {
    return absl::StrCat(num_experts, " experts are used where they lie in host memory");
  }
  return absl::StrFormat("%d slots for %d experts (%.0f %%), %d ready, %d loading, %s each",
                         cache.slots(),
                         num_experts,
                         100.0 * cache.slots() / num_experts,
                         cache.slots_ready(),
                         cache.slots_loading(),
                         FormatBytes(cache.slot_bytes()));
}

std::string SpeculationText(const v1::Speculation& speculation) {
  if (speculation.predicted() == 0) return speculation.mode();
  return absl::StrFormat("%s, %.1f %% of %d predictions were right",
                         speculation.mode(),
                         100.0 * static_cast<double>(speculation.correct()) /
                             static_cast<double>(speculation.predicted()),
                         speculation.predicted());
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

std::string FormatExpertCache(const v1::GetExpertCacheResponse& cache) {
  const v1::PrefetchBytes& prefetched = cache.prefetch_bytes();
  std::string text = FormatTable(
      {{"experts", Slots(cache)},
       {"look-ups", Rates(cache.lookups())},
       {"loaded",
        absl::StrCat(FormatBytes(cache.demanded_bytes()),
                     " on demand; prefetched ",
                     FormatBytes(prefetched.useful()),
                     " useful, ",
                     FormatBytes(prefetched.late()),
                     " late, ",
                     FormatBytes(prefetched.wasted()),
                     " wasted")},
       {"stall", absl::StrFormat("%.3f s", cache.stall_seconds())},
       {"policy",
        absl::StrCat(
            cache.memory_strategy(), ", ", cache.eviction(), ", codec ", cache.expert_codec())},
       {"speculation", SpeculationText(cache.speculation())}});
  if (cache.layers().empty()) return text;
  std::vector<std::vector<std::string>> rows = {{"LAYER", "LOOK-UPS"}};
  for (const v1::ExpertCacheLayer& layer : cache.layers()) {
    rows.push_back({absl::StrCat(layer.layer()), Rates(layer.lookups())});
  }
  return absl::StrCat(text, "\n", FormatTable(rows));
}

}  // namespace pregate
