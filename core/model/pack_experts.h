// From a checkpoint's experts to a pack of them. Needs no LibTorch.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/kernel/codec.h"
#include "core/model/model_config.h"
#include "core/storage/expert_pack.h"
#include "core/storage/safetensors.h"

namespace pregate {

// The files of a packed folder, beside config.json and those of the tokenizer.
inline constexpr char kPackName[] = "experts.pack";
inline constexpr char kDenseName[] = "dense.safetensors";  // all tensors but the experts'

// The dtype that "auto" means: the configuration's, else that of the embedding; what is stored
// otherwise is converted.
Dtype CheckpointDtype(const ModelConfig& config, const Safetensors& files);

// What all experts of the model have in common, with kNone's numbers in `dtype`.
ExpertShape ExpertShapeOf(const ModelConfig& config, Dtype dtype);

// The header of a pack of the model's experts. `source`: what tells one checkpoint from another,
// see CheckpointFingerprint.
absl::StatusOr<ExpertPackHeader> PackHeaderOf(const ModelConfig& config,
                                              Codec codec,
                                              Dtype dtype,
                                              const std::string& source);

// How a pack's records are to be read. INVALID_ARGUMENT names the property that is missing, unknown
// or at odds with another, or what the model at hand has otherwise.
absl::StatusOr<RecordLayout> LayoutOfPack(const ExpertPackHeader& header,
                                          const ModelConfig& config);

// Of the names, sizes and times of a folder's config.json and weights: 16 hexadecimal digits.
absl::StatusOr<std::string> CheckpointFingerprint(const std::string& folder);

// Encodes every expert in `files` into the pack `path`, or goes on with one that was not finished.
// INVALID_ARGUMENT names the tensor that is missing, has another shape or dtype, or holds a number
// that is not finite. `on_progress` is called behind each expert with the records written and all
// of them; it may be null.
absl::Status PackExperts(const Safetensors& files,
                         const ModelConfig& config,
                         const ExpertPackHeader& header,
                         const std::string& path,
                         const std::function<void(uint64_t done, uint64_t total)>& on_progress);

}  // namespace pregate
