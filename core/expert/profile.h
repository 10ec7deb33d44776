// What the hardware does with a model's experts, measured.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/base/clock.h"
#include "core/device/backend.h"
#include "core/device/host_info.h"
#include "core/expert/slot_plan.h"
#include "core/storage/expert_pack.h"

namespace pregate {

struct DeviceProfile {
  struct LinkPoint {
    uint64_t bytes = 0;  // of one copy
    double bytes_per_second = 0;
  };
  struct ComputePoint {
    uint32_t rows = 0;
    double seconds = 0;  // of one expert's products for so many tokens
  };
  HostInfo host;
  std::string device;                 // ProfiledModel::device
  uint64_t device_bytes = 0;          // memory of the device
  uint64_t free_bytes = 0;            // of it, free
  double host_bytes_per_second = 0;   // copying within host memory
  double disk_bytes_per_second = 0;   // reading the pack, one record after another, past the cache
  std::vector<LinkPoint> link;        // host to device, from 256 KiB to 64 MiB; see MeasureDevice
  std::string codec;                  // that the pack's experts are in
  uint64_t record_bytes = 0;          // of one of them
  double transfer_seconds = 0;        // of its copy, host to device
  std::vector<ComputePoint> compute;  // ascending in rows, the first of one; see MeasureDevice
  double dense_seconds = 0;           // ProfiledModel::RunDenseLayer
};

// What a profile asks of the model, and of what computes it. Used by one thread at a time, beside
// the engine's: an implementation shares nothing with it that either changes.
class ProfiledModel {
 public:
  virtual ~ProfiledModel() = default;

  // What computes: "cpu", "cuda:0: NVIDIA GeForce RTX 3090".
  virtual std::string device() const = 0;

  // An encoding of the experts that the model can be served in.
  struct Encoding {
    std::string codec;
    uint64_t record_bytes = 0;
  };
  // The most exact first, at least one.
  virtual std::vector<Encoding> encodings() const = 0;

  // What is left for experts when the model is served in `codec`, one of the encodings, with up to
  // `max_running` sequences. The errors of the memory plan: it does not fit.
  struct Room {
    SlotNeeds slots;
    bool host_holds_all = false;  // when the device takes none of the host's memory
  };
  virtual absl::StatusOr<Room> PlanRoom(absl::string_view codec, uint32_t max_running) const = 0;

  // Seconds of one expert's products for `rows` tokens, up to kMostRows. `record`: the encoded
  // expert, in device memory.
  virtual absl::StatusOr<double> RunExpert(const std::byte* record, uint32_t rows) = 0;
  // Seconds of a layer's other products for one token; the next layer's with each call.
  virtual absl::StatusOr<double> RunDenseLayer() = 0;

  static constexpr uint32_t kMostRows = 64;
};

// Called before each of a profile's measurements, and within long ones, with how many are done and
// how many there are: shows progress, and ends the profile by returning an error.
using OnProfileStep = std::function<absl::Status(uint32_t done, uint32_t total)>;

// Measures `backend`, the disk under `pack` and `model` on them, on a stream and in memory of its
// own. What else runs meanwhile shows in the figures and is slowed, but not otherwise touched.
//
// Takes a second or two and is bounded: each figure is the fastest of up to five runs within a
// quarter of a second, sizes of which one run would take more than a second are left out of `link`
// and `compute`, and a second is enough to read or copy records; but at least one of each is done.
// Memory: up to 64 MiB, or one record where that is more, of host and as much of device memory.
//
// RESOURCE_EXHAUSTED where there is not that much memory; the errors of `pack`, `model`, `on_step`.
absl::StatusOr<DeviceProfile> MeasureDevice(Backend& backend,
                                            const ExpertPack& pack,
                                            const Clock& clock,
                                            ProfiledModel& model,
                                            const OnProfileStep& on_step);

}  // namespace pregate
