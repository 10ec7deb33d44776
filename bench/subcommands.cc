#include "bench/subcommands.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/status_macros.h"
#include "tools/cli.h"

#ifndef PREGATE_COMMIT
#define PREGATE_COMMIT ""
#endif

namespace pregate {

void AddEngineFlags(CLI::App& app, EngineOptions& options, const std::vector<std::string>& names) {
  const std::vector<Flag> all = EngineFlags(options);
  std::vector<Flag> flags;
  flags.reserve(names.size());
  for (const std::string& name : names) {
    flags.push_back(
        *std::find_if(all.begin(), all.end(), [&](const Flag& flag) { return flag.name == name; }));
  }
  AddFlags(app, flags);
  app.get_option("--model")->required();
}

Flag CountsFlag(std::string name,
                std::string help,
                uint32_t minimum,
                uint32_t maximum,
                std::vector<uint32_t>& target) {
  return {.name = std::move(name),
          .value_name = "N,N",
          .help = std::move(help),
          .set = [minimum, maximum, &target](absl::string_view text) -> absl::Status {
            std::vector<uint32_t> counts;
            for (const absl::string_view piece : absl::StrSplit(text, ',')) {
              uint32_t count = 0;
              PREGATE_RETURN_IF_ERROR(CountFlag("", "", minimum, maximum, count).set(piece));
              counts.push_back(count);
            }
            target = std::move(counts);
            return absl::OkStatus();
          }};
}

std::string BuildCommit() { return PREGATE_COMMIT; }

nlohmann::ordered_json ToJson(const Spread& spread) {
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

std::string RangeText(const Spread& spread, int decimals) {
  return absl::StrFormat(
      "%.*f (%.*f..%.*f)", decimals, spread.median, decimals, spread.min, decimals, spread.max);
}

Spread Scaled(const Spread& spread, double factor) {
  return {.median = spread.median * factor, .min = spread.min * factor, .max = spread.max * factor};
}

}  // namespace pregate
