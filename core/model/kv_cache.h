// The keys and values of all layers, in blocks. Storage only: the engine knows whose block is
// whose.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/options.h"
#include "core/kernel/attention.h"
#include "core/model/aten.h"
#include "core/model/model_config.h"

namespace pregate {

class KvCache {
 public:
  // Memory is reserved here, and taken from the system when a block is first written. Throws what
  // LibTorch throws when there is not enough.
  KvCache(const ModelConfig& config, Dtype dtype, uint32_t block_size, uint32_t num_blocks);

  // Of one block in all layers.
  static uint64_t BytesPerBlock(const ModelConfig& config, Dtype dtype, uint32_t block_size);

  KvCacheView layer(uint32_t layer) const;
  uint32_t block_size() const { return block_size_; }
  uint32_t num_blocks() const { return num_blocks_; }
  uint64_t bytes() const;

 private:
  const Dtype dtype_;
  const uint32_t num_kv_heads_;
  const uint32_t head_dim_;
  const uint32_t block_size_;
  const uint32_t num_blocks_;
  // Per layer [2 (keys, values), num_blocks, num_kv_heads, block_size, head_dim].
  std::vector<at::Tensor> layers_;
};

}  // namespace pregate
