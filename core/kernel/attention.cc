#include "core/kernel/attention.h"

#include "core/kernel/grain.h"

namespace pregate {

void KvStore(const CpuContext& cpu, const KvStoreArgs& args) {
  const int64_t operations = 2 * args.cache.num_kv_heads * args.cache.head_dim;
  cpu.parallel_for(args.num_tokens, GrainFor(operations), [&](int64_t begin, int64_t end) {
    cpu.kernels->kv_store(args, begin, end);
  });
}

void Attention(const CpuContext& cpu, const AttentionArgs& args) {
  int64_t positions = 0;
  for (int64_t i = 0; i < args.num_tokens; ++i) positions += args.places[i].position + 1;
  if (positions == 0) return;
  const int64_t operations = positions / args.num_tokens * args.cache.head_dim;
  cpu.parallel_for(args.num_tokens * args.num_heads,
                   GrainFor(operations),
                   [&](int64_t begin, int64_t end) { cpu.kernels->attention(args, begin, end); });
}

}  // namespace pregate
