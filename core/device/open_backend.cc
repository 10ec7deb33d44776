#include "core/device/open_backend.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/device/cuda_backend.h"

namespace pregate {

absl::StatusOr<std::unique_ptr<Backend>> OpenBackend(absl::string_view device,
                                                     std::optional<SimulatedLink> link) {
  if (device == "cpu") return std::make_unique<CpuBackend>(link);
  if (device == "auto") {
    absl::StatusOr<std::unique_ptr<Backend>> gpu = CreateCudaBackend(0);
    if (!gpu.ok() || link.has_value()) return std::make_unique<CpuBackend>(link);
    return gpu;
  }
  int ordinal = 0;
  absl::string_view number = device;
  const bool is_numbered =
      absl::ConsumePrefix(&number, "cuda:") && absl::SimpleAtoi(number, &ordinal) && ordinal >= 0;
  if (device != "cuda" && !is_numbered) {
    return absl::InvalidArgumentError(
        absl::StrCat("device: '", device, "' is not one of auto, cpu, cuda, cuda:N"));
  }
  if (link.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("simulated_link paces the CPU's copies; device: ", device));
  }
  return CreateCudaBackend(ordinal);
}

}  // namespace pregate
