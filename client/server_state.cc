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

// "61.3 %"; "-" of nothing.
std::string Share(uint64_t part, uint64_t all) {
  if (all == 0) return "-";
  return absl::StrFormat("%.1f %%", 100.0 * static_cast<double>(part) / static_cast<double>(all));
}

uint64_t Count(const v1::ExpertLookups& lookups) {
  return lookups.hits() + lookups.late_hits() + lookups.misses();
}

std::string Lookups(const v1::ExpertLookups& lookups) {
  const uint64_t all = Count(lookups);
  if (all == 0) return "none yet";
  return absl::StrCat(ShortCount(all),
                      ": ",
                      Share(lookups.hits(), all),
                      " hits, ",
                      Share(lookups.late_hits(), all),
                      " late, ",
                      Share(lookups.misses(), all),
                      " misses");
}

std::string Prefetched(const v1::PrefetchBytes& bytes) {
  return absl::StrCat(FormatBytes(bytes.useful()),
                      " useful, ",
                      FormatBytes(bytes.late()),
                      " late, ",
                      FormatBytes(bytes.wasted()),
                      " wasted, ",
                      FormatBytes(bytes.cancelled()),
                      " cancelled, ",
                      FormatBytes(bytes.pending()),
                      " pending");
}

std::string Layers(const v1::GetExpertCacheResponse& cache) {
  std::vector<std::vector<std::string>> rows = {{"LAYER", "LOOK-UPS", "HITS", "LATE", "MISSES"}};
  for (const v1::ExpertCacheLayer& layer : cache.layers()) {
    const v1::ExpertLookups& lookups = layer.lookups();
    const uint64_t all = Count(lookups);
    rows.push_back({absl::StrCat(layer.layer()),
                    absl::StrCat(all),
                    Share(lookups.hits(), all),
                    Share(lookups.late_hits(), all),
                    Share(lookups.misses(), all)});
  }
  return FormatTable(rows);
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
  return absl::StrCat(speculation.mode(),
                      ", ",
                      Share(speculation.correct(), speculation.predicted()),
                      " of ",
                      ShortCount(speculation.predicted()),
                      " predictions were right");
}

std::string Codec(const v1::GetExpertCacheResponse& cache) {
  if (cache.load_codec().empty() || cache.load_codec() == cache.expert_codec()) {
    return cache.expert_codec();
  }
  return absl::StrCat(cache.expert_codec(), " (now ", cache.load_codec(), ")");
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
  const std::string text = FormatTable(
      {{"experts", Slots(cache)},
       {"look-ups", Lookups(cache.lookups())},
       {"loaded",
        absl::StrCat(
            FormatBytes(cache.demanded_bytes()), " on demand, ", cache.evictions(), " evictions")},
       {"prefetched", Prefetched(cache.prefetch_bytes())},
       {"stall", absl::StrFormat("%.3f s", cache.stall_seconds())},
       {"policy",
        absl::StrCat(cache.memory_strategy(), ", ", cache.eviction(), ", codec ", Codec(cache))},
       {"speculation", SpeculationText(cache.speculation())}});
  return cache.layers().empty() ? text : absl::StrCat(text, "\n", Layers(cache));
}

}  // namespace pregate
