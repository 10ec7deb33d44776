#include "core/kernel/attention.h"

#include <algorithm>
#include <numeric>

#include "tests/unit/kernel/kernel_levels.h"

namespace pregate {
namespace {

struct Shape {
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t block_size;
};

// One sequence of random queries, keys and values, and a cache in which its blocks are scattered
// among poisoned ones.
class AttentionTest : public KernelLevelTest {
 protected:
  void Make(const Shape& shape, Dtype dtype, int64_t num_tokens) {
    shape_ = shape;
    dtype_ = dtype;
    num_tokens_ = num_tokens;
    queries_ = Random(num_tokens * shape.num_heads * shape.head_dim);
    keys_ = Random(num_tokens * shape.num_kv_heads * shape.head_dim);
    values_ = Random(num_tokens * shape.num_kv_heads * shape.head_dim);
    const int64_t num_blocks = (num_tokens + shape.block_size - 1) / shape.block_size;
    blocks_.resize(2 * num_blocks);
    std::iota(blocks_.begin(), blocks_.end(), 0);
    std::shuffle(blocks_.begin(), blocks_.end(), engine());
    // All bits set is a NaN in both dtypes.
    const size_t count = blocks_.size() * shape.block_size * shape.num_kv_heads * shape.head_dim;
    key_cache_.assign(count, 0xffffffff);
    value_cache_.assign(count, 0xffffffff);
    blocks_.resize(num_blocks);
    places_.clear();
    for (int64_t i = 0; i < num_tokens; ++i) {
      places_.push_back({.blocks = blocks_.data(), .position = static_cast<uint32_t>(i)});
    }
  }

  KvCacheView cache() {
    return {.keys = key_cache_.data(),
            .values = value_cache_.data(),
            .dtype = dtype_,
            .num_kv_heads = shape_.num_kv_heads,
            .block_size = shape_.block_size,
            .head_dim = shape_.head_dim};
  }

  void StoreAll(const CpuContext& context) {
    KvStore(context,
            {.keys = keys_.data(),
             .values = values_.data(),
             .places = places_.data(),
             .num_tokens = num_tokens_,
             .cache = cache()});
  }

  // Of the tokens [begin, end).
  std::vector<float> Attend(const CpuContext& context, int64_t begin, int64_t end) {
    const int64_t width = shape_.num_heads * shape_.head_dim;
    std::vector<float> out((end - begin) * width, kPoison);
    Attention(context,
              {.queries = queries_.data() + begin * width,
               .places = places_.data() + begin,
               .out = out.data(),
               .num_tokens = end - begin,
               .num_heads = shape_.num_heads,
               .scale = kScale,
               .cache = cache()});
    return out;
  }

  double Stored(float x) const {
    return dtype_ == Dtype::kBfloat16 ? FromBfloat16Bits(RoundedToBfloat16(x)) : x;
  }

  std::vector<double> Expected() const {
    const int64_t dim = shape_.head_dim;
    const int64_t group = shape_.num_heads / shape_.num_kv_heads;
    std::vector<double> out(queries_.size());
    for (int64_t token = 0; token < num_tokens_; ++token) {
      for (int64_t head = 0; head < shape_.num_heads; ++head) {
        const float* query = &queries_[(token * shape_.num_heads + head) * dim];
        std::vector<double> weights;
        for (int64_t p = 0; p <= token; ++p) {
          const float* key = &keys_[(p * shape_.num_kv_heads + head / group) * dim];
          double score = 0;
          for (int64_t d = 0; d < dim; ++d) score += query[d] * Stored(key[d]);
          weights.push_back(std::exp(score * kScale));
        }
        const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
        for (int64_t d = 0; d < dim; ++d) {
          double value = 0;
          for (int64_t p = 0; p <= token; ++p) {
            value += weights[p] / sum *
                     Stored(values_[(p * shape_.num_kv_heads + head / group) * dim + d]);
          }
          out[(token * shape_.num_heads + head) * dim + d] = value;
        }
      }
    }
    return out;
  }

  static constexpr float kScale = 0.3f;
  static constexpr Shape kShapes[] = {
      {1, 1, 2, 1}, {4, 2, 8, 4}, {5, 5, 32, 16}, {6, 1, 30, 7}, {8, 2, 64, 32}};

  Shape shape_{};
  Dtype dtype_ = Dtype::kFloat32;
  int64_t num_tokens_ = 0;
  std::vector<float> queries_, keys_, values_;
  std::vector<uint32_t> blocks_;
  std::vector<uint32_t> key_cache_, value_cache_;  // room for either dtype
  std::vector<TokenPlace> places_;
};
PREGATE_INSTANTIATE_LEVELS(AttentionTest);

TEST_P(AttentionTest, AgreesWithSoftmaxOverAllEarlierPositions) {
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBfloat16}) {
    for (const Shape& shape : kShapes) {
      Make(shape, dtype, 53);
      StoreAll(cpu());
      const std::vector<float> out = Attend(cpu(), 0, num_tokens_);
      EXPECT_TRUE(AreNear(out, Expected(), 2e-6)) << DtypeName(dtype) << " " << shape.head_dim;
      EXPECT_TRUE(SameBits(out, Attend(cut_cpu(), 0, num_tokens_)));
      EXPECT_TRUE(SameBits(out, Attend(baseline(), 0, num_tokens_)));
    }
  }
}

TEST_P(AttentionTest, GivesATokenTheSameBitsAlone) {
  Make({4, 2, 32, 16}, Dtype::kFloat32, 40);
  StoreAll(cut_cpu());
  const std::vector<float> together = Attend(cpu(), 0, num_tokens_);
  const int64_t width = shape_.num_heads * shape_.head_dim;
  for (int64_t token = 0; token < num_tokens_; ++token) {
    const std::vector<float> alone = Attend(cpu(), token, token + 1);
    EXPECT_TRUE(
        SameBits(alone, {together.begin() + token * width, together.begin() + (token + 1) * width}))
        << token;
  }
}

TEST_P(AttentionTest, DoesNotDependOnTheBlockSize) {
  std::vector<float> first;
  for (const int64_t block_size : {1, 5, 16, 64}) {
    Make({4, 2, 32, block_size}, Dtype::kFloat32, 40);
    std::mt19937 same(7);
    std::normal_distribution<float> normal;
    for (std::vector<float>* numbers : {&queries_, &keys_, &values_}) {
      for (float& number : *numbers) number = normal(same);
    }
    StoreAll(cpu());
    const std::vector<float> out = Attend(cpu(), 0, num_tokens_);
    if (first.empty()) first = out;
    EXPECT_TRUE(SameBits(out, first)) << block_size;
  }
}

// Scores far apart: only relative to their maximum can they be summed.
TEST_P(AttentionTest, SurvivesLargeScores) {
  Make({1, 1, 16, 16}, Dtype::kFloat32, 40);
  for (float& query : queries_) query *= 500;
  StoreAll(cpu());
  for (const float x : Attend(cpu(), 0, num_tokens_)) EXPECT_TRUE(std::isfinite(x));
}

}  // namespace
}  // namespace pregate
