// The host as a device: each stream is a thread with a queue, so that copies really run beside the
// computing, and a copy can be paced as if it went over a link.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/device/backend.h"

namespace pregate {

// A link that copies take turns on. A copy of n bytes holds it for latency + n / bandwidth, by an
// absolute deadline, so that the pauses of many copies do not add up to more.
struct SimulatedLink {
  double bytes_per_second = 0;
  double latency_seconds = 0;
};

// "25GiB/s,10us" (units of ParseBytes; ns, us, ms or s). INVALID_ARGUMENT says what is wrong.
absl::StatusOr<SimulatedLink> ParseSimulatedLink(absl::string_view text);

class CpuBackend final : public Backend {
 public:
  // With a link every copy of its streams is paced by it: they all go between host and device.
  explicit CpuBackend(std::optional<SimulatedLink> link = std::nullopt);
  ~CpuBackend() override;

  absl::StatusOr<Buffer> Allocate(MemoryKind kind, size_t bytes) override;
  absl::StatusOr<Buffer> Reserve(size_t bytes) override;
  absl::Status Commit(const Buffer& reserved, size_t offset, size_t bytes) override;
  absl::Status Decommit(const Buffer& reserved, size_t offset, size_t bytes) override;
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const std::string& name) override;
  MemoryInfo memory() const override;
  bool is_host() const override { return true; }

 private:
  class Link;
  class WorkerStream;
  const std::unique_ptr<Link> link_;  // null without
};

// The calling thread as a stream: copies happen at once, Wait blocks, and what Record returns has
// passed. What computes on the CPU in its own thread is a consumer of other streams through this.
// Used by one thread at a time.
class CallerStream final : public Stream {
 public:
  void CopyAsync(std::byte* to, const std::byte* from, size_t bytes) override;
  Event Record() override;
  void Wait(const Event& event) override;
  // The first error of an event that was waited for.
  absl::Status Synchronize() override;

 private:
  absl::Status status_;
};

}  // namespace pregate
