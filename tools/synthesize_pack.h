// Packs of random experts, as fast as the disk takes them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "core/base/options.h"
#include "core/kernel/codec.h"

namespace pregate {

// Writes the experts of the model in `folder`/config.json to `folder`/experts.pack. A few experts
// are drawn from normal numbers and encoded, and all are made of their rows, which are mixed anew
// for each; none has a row twice. So records have the codec's true form and spread of values, and
// the weights are the same whatever the codec. The same seed gives the same bytes. Shows its
// progress on stderr.
absl::Status SynthesizePack(const std::string& folder, Codec codec, Dtype dtype, uint64_t seed);

}  // namespace pregate
