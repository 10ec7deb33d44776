#include "server/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace pregate {
namespace {

std::string ReadAll(const char* path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// The time when the machine was started, in seconds since the epoch.
std::optional<double> BootTime() {
  for (absl::string_view line : absl::StrSplit(ReadAll("/proc/stat"), '\n')) {
    double seconds = 0;
    if (absl::ConsumePrefix(&line, "btime ") && absl::SimpleAtod(line, &seconds)) return seconds;
  }
  return std::nullopt;
}

}  // namespace

void VisitProcessStats(StatsVisitor& visitor) {
  // The fields of proc(5)'s `stat` behind the command, which ends with the last parenthesis: the
  // first is the third there.
  const std::string stat = ReadAll("/proc/self/stat");
  const std::vector<std::string> fields =
      absl::StrSplit(stat.substr(std::min(stat.rfind(')') + 2, stat.size())), ' ');
  const auto field = [&](size_t number) {
    double value = 0;
    return number - 3 < fields.size() && absl::SimpleAtod(fields[number - 3], &value)
               ? std::optional<double>(value)
               : std::nullopt;
  };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  if (field(14) && field(15)) {
    visitor.OnCounter("process_cpu_seconds_total",
                      "User and system CPU time.",
                      {},
                      (*field(14) + *field(15)) / ticks);
  }
  if (field(22) && BootTime()) {
    visitor.OnGauge("process_start_time_seconds",
                    "When the process was started, in Unix time.",
                    {},
                    *BootTime() + *field(22) / ticks);
  }
  if (field(23)) visitor.OnGauge("process_virtual_memory_bytes", "Virtual memory.", {}, *field(23));
  if (field(24)) {
    visitor.OnGauge("process_resident_memory_bytes",
                    "Resident memory.",
                    {},
                    *field(24) * static_cast<double>(sysconf(_SC_PAGESIZE)));
  }
  std::error_code error;
  const std::filesystem::directory_iterator descriptors("/proc/self/fd", error);
  if (!error)
    visitor.OnGauge("process_open_fds",
                    "Open file descriptors.",
                    {},
                    static_cast<double>(std::distance(begin(descriptors), end(descriptors))));
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    visitor.OnGauge("process_max_fds",
                    "The limit of open file descriptors.",
                    {},
                    static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace pregate
