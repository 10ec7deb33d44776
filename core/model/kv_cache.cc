#include "core/model/kv_cache.h"

namespace pregate {

KvCache::KvCache(const ModelConfig& config, Dtype dtype, uint32_t block_size, uint32_t num_blocks)
    : dtype_(dtype),
      num_kv_heads_(config.num_kv_heads),
      head_dim_(config.head_dim),
      block_size_(block_size),
      num_blocks_(num_blocks) {
  for (uint32_t layer = 0; layer < config.num_layers; ++layer) {
    layers_.push_back(
        EmptyTensor({2, num_blocks, num_kv_heads_, block_size, head_dim_}, ScalarTypeOf(dtype)));
  }
}

uint64_t KvCache::BytesPerBlock(const ModelConfig& config, Dtype dtype, uint32_t block_size) {
  return uint64_t{2} * config.num_layers * config.num_kv_heads * block_size * config.head_dim *
         at::elementSize(ScalarTypeOf(dtype));
}

KvCacheView KvCache::layer(uint32_t layer) const {
  const at::Tensor& tensor = layers_[layer];
  auto* keys = static_cast<std::byte*>(tensor.mutable_data_ptr());
  return {.keys = keys,
          .values = keys + tensor.nbytes() / 2,
          .dtype = dtype_,
          .num_kv_heads = num_kv_heads_,
          .block_size = block_size_,
          .head_dim = head_dim_};
}

uint64_t KvCache::bytes() const {
  return layers_.empty() ? 0 : layers_.size() * layers_.front().nbytes();
}

}  // namespace pregate
