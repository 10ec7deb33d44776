// What the server counts itself; the engine counts the rest.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/base/stats.h"

namespace pregate {

// Thread-safe.
class ServerStats {
 public:
  // `methods`: the bare names of all RPCs, so that every series is there from the start.
  explicit ServerStats(const std::vector<std::string>& methods);

  // A call has been answered. `method` is one of the constructor's.
  void OnHandled(absl::string_view method, const absl::Status& status);
  // So many tokens of an answer have been taken in; none that is behind a stop string.
  void OnTokens(size_t tokens) { generation_tokens_.Add(static_cast<double>(tokens)); }
  // An answer of so many tokens has ended, with or without an error.
  void OnAnswered(size_t tokens) {
    request_generation_tokens_.Observe(static_cast<double>(tokens));
  }
  // A write was in flight for so long while more was ready to be written.
  void OnWriteBlocked(double seconds) { write_blocked_seconds_.Add(seconds); }

  void Visit(StatsVisitor& visitor) const;

 private:
  static constexpr int kCodes = 17;
  using CodeCounters = std::vector<Counter>;  // [kCodes]

  std::map<std::string, CodeCounters, std::less<>> handled_;
  std::map<std::string, Counter, std::less<>> rejected_;  // by reason
  Counter generation_tokens_;
  Histogram request_generation_tokens_;
  Counter write_blocked_seconds_;
};

}  // namespace pregate
