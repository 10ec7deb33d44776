#include "core/kernel/attention.h"
#include "core/kernel/lanes.h"

namespace pregate::PREGATE_CPU_LEVEL {
namespace {

constexpr int64_t kTile = kLanes;  // positions whose scores are taken together

PREGATE_INLINE int64_t CacheOffset(const KvCacheView& cache,
                                   const uint32_t* blocks,
                                   int64_t kv_head,
                                   int64_t position) {
  const int64_t block = blocks[position / cache.block_size];
  const int64_t slot = position % cache.block_size;
  return ((block * cache.num_kv_heads + kv_head) * cache.block_size + slot) * cache.head_dim;
}

PREGATE_INLINE void StoreRow(const float* x, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = x[i];
}

PREGATE_INLINE void StoreRow(const float* x, uint16_t* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = RoundToBfloat16(x[i]);
}

template <typename T>
PREGATE_INLINE void StoreTokens(const KvStoreArgs& args, int64_t begin, int64_t end) {
  const KvCacheView& cache = args.cache;
  for (int64_t token = begin; token < end; ++token) {
    const TokenPlace& place = args.places[token];
    for (int64_t head = 0; head < cache.num_kv_heads; ++head) {
      const int64_t from = (token * cache.num_kv_heads + head) * cache.head_dim;
      const int64_t to = CacheOffset(cache, place.blocks, head, place.position);
      StoreRow(args.keys + from, static_cast<T*>(cache.keys) + to, cache.head_dim);
      StoreRow(args.values + from, static_cast<T*>(cache.values) + to, cache.head_dim);
    }
  }
}

// The softmax of the scores seen so far: their maximum, and what was summed relative to it.
struct OnlineSoftmax {
  float max;
  Lanes sum;               // of the weights, one lane per position of a tile
  float out[kMaxHeadDim];  // of the weighted values, [head_dim]
};

// out = out · scale + Σ weights[i] · values[i] over the tile, i in order.
template <typename T>
PREGATE_INLINE void AddValues(const T* const* values,
                              const float* weights,
                              int64_t count,
                              float scale,
                              int64_t head_dim,
                              float* out) {
  int64_t d = 0;
  for (; d + kLanes <= head_dim; d += kLanes) {
    Lanes sum = Load(out + d) * scale;
    for (int64_t i = 0; i < count; ++i) sum += Load(values[i] + d) * weights[i];
    Store(sum, out + d);
  }
  if (d < head_dim) {
    Lanes sum = LoadPart(out + d, head_dim - d) * scale;
    for (int64_t i = 0; i < count; ++i) sum += LoadPart(values[i] + d, head_dim - d) * weights[i];
    StorePart(sum, out + d, head_dim - d);
  }
}

// Takes the positions [first, first + count) in, count ≤ kTile.
template <typename T>
PREGATE_INLINE void AddTile(const AttentionArgs& args,
                            const float* query,
                            const uint32_t* blocks,
                            int64_t kv_head,
                            int64_t first,
                            int64_t count,
                            OnlineSoftmax& softmax) {
  const KvCacheView& cache = args.cache;
  const T* values[kTile];
  Lanes scores = Broadcast(-__builtin_inff());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t offset = CacheOffset(cache, blocks, kv_head, first + i);
    values[i] = static_cast<const T*>(cache.values) + offset;
    scores[i] = Dot(query, static_cast<const T*>(cache.keys) + offset, cache.head_dim) * args.scale;
  }
  const float tile_max = Max(scores);
  const float max = softmax.max > tile_max ? softmax.max : tile_max;
  const float rescale = Exp(Broadcast(softmax.max - max))[0];
  const Lanes weights = Exp(scores - max);
  float weight[kTile];
  Store(weights, weight);
  softmax.max = max;
  softmax.sum = softmax.sum * rescale + weights;
  AddValues(values, weight, count, rescale, cache.head_dim, softmax.out);
}

template <typename T>
PREGATE_INLINE void AttendHeads(const AttentionArgs& args, int64_t begin, int64_t end) {
  const int64_t head_dim = args.cache.head_dim;
  const int64_t queries_per_key = args.num_heads / args.cache.num_kv_heads;
  for (int64_t item = begin; item < end; ++item) {
    const TokenPlace& place = args.places[item / args.num_heads];
    const int64_t kv_head = item % args.num_heads / queries_per_key;
    const float* query = args.queries + item * head_dim;
    OnlineSoftmax softmax;
    softmax.max = -__builtin_inff();
    softmax.sum = Broadcast(0);
    for (int64_t d = 0; d < head_dim; ++d) softmax.out[d] = 0;

    const int64_t num_positions = static_cast<int64_t>(place.position) + 1;
    for (int64_t first = 0; first < num_positions; first += kTile) {
      const int64_t left = num_positions - first;
      AddTile<T>(args, query, place.blocks, kv_head, first, left < kTile ? left : kTile, softmax);
    }
    const float scale = 1.0f / Sum(softmax.sum);
    float* out = args.out + item * head_dim;
    for (int64_t d = 0; d < head_dim; ++d) out[d] = softmax.out[d] * scale;
  }
}

}  // namespace

void KvStore(const KvStoreArgs& args, int64_t begin, int64_t end) {
  if (args.cache.dtype == Dtype::kBfloat16) {
    StoreTokens<uint16_t>(args, begin, end);
  } else {
    StoreTokens<float>(args, begin, end);
  }
}

// An item is one head of one token.
void Attention(const AttentionArgs& args, int64_t begin, int64_t end) {
  if (args.cache.dtype == Dtype::kBfloat16) {
    AttendHeads<uint16_t>(args, begin, end);
  } else {
    AttendHeads<float>(args, begin, end);
  }
}

}  // namespace pregate::PREGATE_CPU_LEVEL
