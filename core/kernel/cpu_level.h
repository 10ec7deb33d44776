// The functions that each instruction level defines, in a namespace of its own. Only *_cpu.cc files
// include it; they use raw pointers and loops, and no inline function of a library, since the
// linker may keep a copy that was compiled for a CPU with more instructions than the one at hand.
#pragma once

#include "core/kernel/cpu_kernels.h"

#ifndef PREGATE_CPU_LEVEL
#error "compiled by core/kernel/CMakeLists.txt once per level"
#endif

namespace pregate::PREGATE_CPU_LEVEL {

void RmsNorm(const RmsNormArgs& args, int64_t begin, int64_t end);
void Rope(const RopeArgs& args, int64_t begin, int64_t end);
void KvStore(const KvStoreArgs& args, int64_t begin, int64_t end);
void Attention(const AttentionArgs& args, int64_t begin, int64_t end);
void Route(const RouteArgs& args, int64_t begin, int64_t end);
void Activate(const ActivateArgs& args, int64_t begin, int64_t end);
void Combine(const CombineArgs& args, int64_t begin, int64_t end);
void Gather(const GatherArgs& args, int64_t begin, int64_t end);
void Add(const float* x, float* sum, int64_t begin, int64_t end);
void ToBfloat16(const float* x, uint16_t* out, int64_t begin, int64_t end);
void FromBfloat16(const uint16_t* x, float* out, int64_t begin, int64_t end);
bool AllFinite(const void* x, bool is_bfloat16, int64_t count);
void EncodedProduct(const EncodedProductArgs& args, int64_t begin, int64_t end);
void ExpWeights(const ExpWeightsArgs& args, int64_t begin, int64_t end);

}  // namespace pregate::PREGATE_CPU_LEVEL
