// What the hardware does with experts, measured, and the settings that follow.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/base/clock.h"
#include "core/device/backend.h"
#include "core/expert/expert_id.h"
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
  std::string device;                 // "cpu: AMD EPYC", "cuda:0: NVIDIA GeForce RTX 3090"
  uint64_t device_bytes = 0;          // memory of the device
  uint64_t free_bytes = 0;            // of it, free
  double host_bytes_per_second = 0;   // copying within host memory
  double disk_bytes_per_second = 0;   // reading the pack past the page cache
  std::vector<LinkPoint> link;        // host to device, 256 KiB … 64 MiB
  std::vector<ComputePoint> compute;  // ascending in rows, the first of one
  double transfer_seconds = 0;        // of one record, host to device
};

// What a profile needs to know of the model.
struct ProfiledModel {
  uint32_t num_layers = 0;
  uint32_t num_experts = 0;
  uint32_t experts_per_token = 0;
  uint64_t record_bytes = 0;         // in the codec at hand
  uint64_t exact_record_bytes = 0;   // in the codec "none"
  double layer_seconds = 0;          // of computing a layer for one token, its experts resident
  uint64_t expert_budget_bytes = 0;  // device memory that experts may take
};

// Measures `backend` and the disk under `pack`. `compute_expert` runs one resident expert's
// products for that many tokens and returns the seconds. Takes about two seconds. Nothing else
// should be running.
absl::StatusOr<DeviceProfile> MeasureDevice(
    Backend& backend,
    absl::string_view device,
    const ExpertPack& pack,
    const Clock& clock,
    const std::function<absl::StatusOr<double>(uint32_t rows)>& compute_expert);

// A flag that the profile speaks for.
struct Recommendation {
  std::string flag;      // with underscores, as in the configuration file
  std::string value;     // in flag syntax; text is not quoted
  bool is_text = false;  // is quoted in the configuration file
  std::string reason;
};

// Settings for `model` on the profiled device: expert_capacity, expert_codec, memory_strategy,
// max_running and speculation_aggressiveness. A card that is known begins with its preset; where a
// measurement says otherwise it wins, and the reason says so.
std::vector<Recommendation> Recommend(const DeviceProfile& profile, const ProfiledModel& model);

// For people: the measurements and the recommendations.
std::string FormatProfile(const DeviceProfile& profile,
                          absl::Span<const Recommendation> recommendations);

// A configuration file in protobuf text format, each field with its reason as a comment.
std::string FormatConfig(absl::Span<const Recommendation> recommendations);

}  // namespace pregate
