// The expert packs that a model runs on: found, or made on first use.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/kernel/codec.h"
#include "core/model/memory_plan.h"
#include "core/model/model_config.h"
#include "core/storage/expert_pack.h"
#include "core/storage/safetensors.h"

namespace pregate {

// Is `folder` one that `pregate-model pack` wrote?
bool HasOwnPack(const std::string& folder);

// The --expert-codec that `options` mean: where none or "auto" is asked for, that of the folder's
// own pack, if it has one.
absl::StatusOr<std::string> ExpertCodecOf(const EngineOptions& options);

// The tensors of a model folder, or the dense ones of a folder that `pregate-model pack` wrote.
absl::StatusOr<Safetensors> OpenCheckpoint(const std::string& folder);

struct OpenedPacks {
  std::vector<ExpertPack> packs;      // one, or for the codec "adaptive" two: exact, then smaller
  std::vector<RecordLayout> layouts;  // of each
};

// Opens the pack in the model's folder, else the one in the pack folder, else packs the model's
// experts from `files` into the latter, which is logged. FAILED_PRECONDITION: the folder's own pack
// has another codec or dtype than asked for; what it has and what to do is said. The errors of
// PackExperts.
absl::StatusOr<OpenedPacks> OpenPacks(const EngineOptions& options,
                                      const ModelConfig& config,
                                      const Safetensors& files,
                                      const MemoryPlan& plan,
                                      Dtype dtype,
                                      const Logger& logger);

}  // namespace pregate
