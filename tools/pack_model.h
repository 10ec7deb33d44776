// From a checkpoint to a folder whose experts are packed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/options.h"
#include "core/kernel/codec.h"
#include "core/storage/safetensors.h"

namespace pregate {

// Of a packed folder, beside the files of core/model/pack_experts.h: {tensor: XXH3 in hexadecimal}.
inline constexpr char kChecksumsName[] = "dense.checksums.json";

struct PackModelOptions {
  std::string folder;  // the checkpoint
  std::string out;     // the folder to make; may exist when it is empty
  Codec codec = Codec::kNone;
  std::optional<Dtype> dtype;  // of the numbers that kNone writes; unset: the checkpoint's
};

struct PackedModel {
  uint64_t num_experts = 0;  // of all layers
  uint64_t pack_bytes = 0;
  uint64_t dense_bytes = 0;
};

// Packs the model in `folder` into `out`, which appears when it is whole; what a killed run left in
// OUT.partial is gone on with if the checkpoint and the options are the same. Shows its progress on
// stderr. INVALID_ARGUMENT names the file, key or tensor at fault. FAILED_PRECONDITION: the folder
// is packed already, `out` exists and is not empty, or another program is at work on it.
// RESOURCE_EXHAUSTED: the disk has no room.
absl::StatusOr<PackedModel> PackModel(const PackModelOptions& options);

// Writes `folder`/dense.checksums.json for tensors that are, or are to be, in dense.safetensors.
absl::Status WriteDenseChecksums(const std::string& folder,
                                 const std::vector<std::string>& names,
                                 const Safetensors& tensors);

// What the file says of a tensor.
std::string TensorChecksum(const TensorView& tensor);

}  // namespace pregate
