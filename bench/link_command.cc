#include <iostream>
#include <memory>
#include <optional>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "bench/link_rate.h"
#include "bench/subcommands.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/device/open_backend.h"
#include "nlohmann/json.hpp"
#include "tools/cli.h"

namespace pregate {
namespace {

struct LinkCommand {
  LinkRateOptions options;
  std::string device = "auto";
  std::string simulated_link;
  bool json = false;
};

Flag SizesFlag(std::string name, std::string help, std::vector<uint64_t>& target) {
  return {.name = std::move(name),
          .value_name = "SIZE,SIZE",
          .help = std::move(help),
          .set = [&target](absl::string_view text) -> absl::Status {
            std::vector<uint64_t> sizes;
            for (const absl::string_view piece : absl::StrSplit(text, ',')) {
              PREGATE_ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(piece));
              if (bytes == 0) return absl::InvalidArgumentError("a record of 0 bytes");
              sizes.push_back(bytes);
            }
            target = std::move(sizes);
            return absl::OkStatus();
          }};
}

void PrintTable(const std::vector<LinkRate>& rates) {
  std::cout << absl::StrFormat("%-10s %8s  %-24s %-24s %-24s %8s\n",
                               "record",
                               "records",
                               "copies, GB/s",
                               "demanded",
                               "hinted",
                               "ratio");
  for (const LinkRate& rate : rates) {
    std::cout << absl::StrFormat("%-10s %8d  %-24s %-24s %-24s %8.2f\n",
                                 FormatBytes(rate.record_bytes),
                                 rate.num_records,
                                 RangeText(rate.copies, 2),
                                 RangeText(rate.demanded, 2),
                                 RangeText(rate.hinted, 2),
                                 rate.demanded.median / rate.copies.median);
  }
  std::cout << "ratio: of the medians, demanded to copies\n";
}

void PrintJson(const LinkCommand& command, const std::vector<LinkRate>& rates) {
  nlohmann::ordered_json sizes = nlohmann::ordered_json::array();
  for (const LinkRate& rate : rates) {
    sizes.push_back({{"record_bytes", rate.record_bytes},
                     {"records", rate.num_records},
                     {"copies_gb_per_second", ToJson(rate.copies)},
                     {"demanded_gb_per_second", ToJson(rate.demanded)},
                     {"hinted_gb_per_second", ToJson(rate.hinted)}});
  }
  const nlohmann::ordered_json json = {{"commit", BuildCommit()},
                                       {"device", command.device},
                                       {"top_k", command.options.top_k},
                                       {"iterations", command.options.iterations},
                                       {"sizes", sizes}};
  std::cout << json.dump() << "\n";
}

absl::Status RunLink(const LinkCommand& command) {
  std::optional<SimulatedLink> link;
  if (!command.simulated_link.empty()) {
    PREGATE_ASSIGN_OR_RETURN(link, ParseSimulatedLink(command.simulated_link));
  }
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                           OpenBackend(command.device, link));
  Progress progress("link", NumLinkRateSteps(command.options));
  PREGATE_ASSIGN_OR_RETURN(
      const std::vector<LinkRate> rates,
      MeasureLinkRate(*backend, command.options, [&progress] { progress.Advance(1); }));
  if (command.json) {
    PrintJson(command, rates);
  } else {
    PrintTable(rates);
  }
  return absl::OkStatus();
}

}  // namespace

Subcommand AddLink(CLI::App& program) {
  const auto command = std::make_shared<LinkCommand>();
  LinkRateOptions& options = command->options;
  options.record_bytes = {uint64_t{1} << 20, uint64_t{4} << 20, uint64_t{16} << 20};
  CLI::App* const app =
      program.add_subcommand("link", "How fast experts come to the device, bare and by the cache");
  AddFlags(
      *app,
      {TextFlag("device",
                "auto|cpu|cuda[:N]",
                "where the experts' slots are (default auto: a GPU if there is one)",
                command->device),
       SizesFlag(
           "record-bytes", "sizes of an expert (default 1MiB,4MiB,16MiB)", options.record_bytes),
       BytesFlag("host-bytes", "of records in pinned memory (default 1GiB)", options.host_bytes),
       CountFlag("top-k", "experts that a layer needs (default 8)", 1, 1024, options.top_k),
       CountFlag("iterations", "turns that count (default 5)", 1, 1000, options.iterations),
       TextFlag("simulated-link",
                "BANDWIDTH,LATENCY",
                "paces the CPU's copies: 25GiB/s,10us (default: no link)",
                command->simulated_link),
       SwitchFlag("json", "print one JSON object", command->json)});
  return {.app = app, .run = [command](const Logger&) { return RunLink(*command); }};
}

}  // namespace pregate
