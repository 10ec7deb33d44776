// The CPU's kernels, compiled once per instruction level and chosen at run time.
#pragma once

#include <cstdint>

#include "core/kernel/cpu_isa.h"
#include "core/kernel/parallel_for.h"

namespace pregate {

struct AttentionArgs;
struct ActivateArgs;
struct CombineArgs;
struct EncodedProductArgs;
struct ExpWeightsArgs;
struct GatherArgs;
struct KvStoreArgs;
struct RmsNormArgs;
struct RopeArgs;
struct RouteArgs;

// One level's functions. Each computes the items [begin, end) of its arguments (rows, tokens,
// heads: see the function of the same name that takes a CpuContext). All levels give the same bits:
// sums run in sixteen lanes that are added up in one order, and products are not fused.
struct CpuKernels {
  CpuIsa isa;
  void (*rms_norm)(const RmsNormArgs& args, int64_t begin, int64_t end);
  void (*rope)(const RopeArgs& args, int64_t begin, int64_t end);
  void (*kv_store)(const KvStoreArgs& args, int64_t begin, int64_t end);
  void (*attention)(const AttentionArgs& args, int64_t begin, int64_t end);
  void (*route)(const RouteArgs& args, int64_t begin, int64_t end);
  void (*activate)(const ActivateArgs& args, int64_t begin, int64_t end);
  void (*combine)(const CombineArgs& args, int64_t begin, int64_t end);
  void (*gather)(const GatherArgs& args, int64_t begin, int64_t end);
  void (*add)(const float* x, float* sum, int64_t begin, int64_t end);
  void (*to_bfloat16)(const float* x, uint16_t* out, int64_t begin, int64_t end);
  void (*from_bfloat16)(const uint16_t* x, float* out, int64_t begin, int64_t end);
  bool (*all_finite)(const void* x, bool is_bfloat16, int64_t count);
  void (*encoded_product)(const EncodedProductArgs& args, int64_t begin, int64_t end);
  void (*exp_weights)(const ExpWeightsArgs& args, int64_t begin, int64_t end);
};

// The functions of a level that this CPU has. Lives forever.
const CpuKernels& CpuKernelsFor(CpuIsa isa);

// What a kernel runs on. A value; thread-safe as its ParallelFor is.
struct CpuContext {
  const CpuKernels* kernels = nullptr;
  ParallelFor parallel_for;
};

}  // namespace pregate
