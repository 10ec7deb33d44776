#include "bench/subcommands.h"

#include <algorithm>

#include "tools/cli.h"

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

}  // namespace pregate
