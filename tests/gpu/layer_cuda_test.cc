// What stands between a pass's products on a device, against the CPU's kernels, and its bits
// against themselves.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <tuple>
#include <vector>

#include "core/kernel/attention.h"
#include "core/kernel/attention_cuda.h"
#include "core/kernel/norm_rope.h"
#include "core/kernel/norm_rope_cuda.h"
#include "core/kernel/router_cuda.h"
#include "tests/gpu/device_array_cuda.h"
#include "tests/unit/kernel/kernel_levels.h"

namespace pregate {
namespace {

// Norms of results that were rounded to bfloat16 once.
constexpr double kOneRounding = 2.5e-3;
constexpr float kEpsilon = 1e-5f;

class LayerCudaTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasCudaDevice()) GTEST_SKIP() << "no CUDA device";
  }
  static CpuContext cpu() {
    return {.kernels = &CpuKernelsFor(CpuIsa::kBaseline), .parallel_for = RunSerially};
  }
  std::vector<float> Random(size_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> numbers(count);
    for (float& number : numbers) number = normal(random_);
    return numbers;
  }
  static std::vector<uint16_t> Rounded(const std::vector<float>& numbers) {
    std::vector<uint16_t> rounded(numbers.size());
    std::transform(numbers.begin(), numbers.end(), rounded.begin(), RoundedToBfloat16);
    return rounded;
  }
  static std::vector<float> Widened(const std::vector<uint16_t>& numbers) {
    std::vector<float> widened(numbers.size());
    std::transform(numbers.begin(), numbers.end(), widened.begin(), FromBfloat16Bits);
    return widened;
  }
  static std::vector<double> Doubles(const std::vector<float>& numbers) {
    return {numbers.begin(), numbers.end()};
  }

  std::mt19937 random_{1};
};

struct Heads {
  uint32_t queries;
  uint32_t kv;
  uint32_t dim;
};
constexpr Heads kHeads[] = {{1, 1, 32}, {4, 2, 64}, {6, 2, 96}, {8, 1, 128}, {16, 1, 256}};

// A block table of one sequence, scattered, and the cache's arrays, poisoned.
struct HostCache {
  HostCache(const Heads& heads, uint32_t block_size, uint32_t num_positions, std::mt19937& random)
      : heads(heads), block_size(block_size), blocks(2 * (num_positions / block_size + 1)) {
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random);
    keys.assign(blocks.size() * block_size * heads.kv * heads.dim, 0xffff);
    values = keys;
  }
  KvCacheView View() {
    return {.keys = keys.data(),
            .values = values.data(),
            .dtype = Dtype::kBfloat16,
            .num_kv_heads = heads.kv,
            .block_size = block_size,
            .head_dim = heads.dim};
  }
  std::vector<TokenPlace> Places(const std::vector<uint32_t>& positions) const {
    std::vector<TokenPlace> places;
    for (const uint32_t position : positions) {
      places.push_back({.blocks = blocks.data(), .position = position});
    }
    return places;
  }

  Heads heads;
  uint32_t block_size;
  std::vector<uint32_t> blocks;
  std::vector<uint16_t> keys, values;
};

// Its copy on the device.
struct DeviceCache {
  explicit DeviceCache(const HostCache& host)
      : heads(host.heads),
        block_size(host.block_size),
        blocks(host.blocks),
        keys(host.keys),
        values(host.values) {}
  CudaKvCache View() const {
    return {.keys = keys.data(),
            .values = values.data(),
            .block_table = blocks.data(),
            .max_blocks = static_cast<uint32_t>(blocks.size()),
            .block_size = block_size,
            .num_kv_heads = heads.kv,
            .head_dim = heads.dim};
  }
  Heads heads;
  uint32_t block_size;
  DeviceArray<uint32_t> blocks;
  DeviceArray<uint16_t> keys, values;
};

std::vector<uint16_t> Attend(const DeviceCache& cache,
                             const std::vector<float>& queries,
                             const std::vector<uint32_t>& positions,
                             uint32_t max_position) {
  const auto num_tokens = static_cast<uint32_t>(positions.size());
  const Heads& heads = cache.heads;
  const DeviceArray<float> device_queries(queries);
  const DeviceArray<uint32_t> device_positions(positions);
  const DeviceArray<uint32_t> sequences(std::vector<uint32_t>(num_tokens, 0));
  const DeviceArray<std::byte> scratch(
      AttentionScratchBytes(num_tokens, heads.queries, heads.dim, max_position));
  const DeviceArray<uint16_t> out(queries.size());
  const absl::Status status = Attention({.queries = device_queries.data(),
                                         .positions = device_positions.data(),
                                         .sequences = sequences.data(),
                                         .scratch = scratch.data(),
                                         .out = out.data(),
                                         .num_tokens = num_tokens,
                                         .query_stride = heads.queries * heads.dim,
                                         .num_heads = heads.queries,
                                         .max_position = max_position,
                                         .scale = 0.3f,
                                         .cache = cache.View()},
                                        nullptr);
  EXPECT_TRUE(status.ok()) << status;
  return out.Read();
}

TEST_F(LayerCudaTest, AttendsAsTheCpuDoesAndAloneAsBesideOthers) {
  constexpr uint32_t kPositions = 600;
  const std::vector<uint32_t> positions = {0, 599, 15, 16, 1, 254, 255, 256, 257, 511, 512};
  for (const Heads& heads : kHeads) {
    const std::vector<float> keys = Random(size_t{kPositions} * heads.kv * heads.dim);
    const std::vector<float> values = Random(keys.size());
    const uint32_t width = heads.queries * heads.dim;
    const std::vector<float> queries = Random(positions.size() * width);
    std::vector<uint16_t> first;
    for (const uint32_t block_size : {16, 7}) {
      HostCache host(heads, block_size, kPositions, random_);
      std::vector<uint32_t> all(kPositions);
      std::iota(all.begin(), all.end(), 0);
      const std::vector<TokenPlace> all_places = host.Places(all);
      KvStore(cpu(),
              {.keys = keys.data(),
               .values = values.data(),
               .places = all_places.data(),
               .num_tokens = kPositions,
               .cache = host.View()});
      const std::vector<TokenPlace> places = host.Places(positions);
      std::vector<float> expected(queries.size());
      Attention(cpu(),
                {.queries = queries.data(),
                 .places = places.data(),
                 .out = expected.data(),
                 .num_tokens = static_cast<int64_t>(positions.size()),
                 .num_heads = heads.queries,
                 .scale = 0.3f,
                 .cache = host.View()});
      const DeviceCache cache(host);
      const std::vector<uint16_t> out = Attend(cache, queries, positions, kPositions - 1);
      EXPECT_TRUE(AreNear(Widened(out), Doubles(expected), kOneRounding)) << heads.dim;
      if (first.empty()) first = out;
      EXPECT_EQ(out, first) << "blocks of " << block_size;
      for (size_t i = 0; i < positions.size(); ++i) {
        const auto query = queries.begin() + i * width;
        EXPECT_EQ(Attend(cache, {query, query + width}, {positions[i]}, positions[i]),
                  std::vector(out.begin() + i * width, out.begin() + (i + 1) * width))
            << heads.dim << " at " << positions[i];
      }
    }
  }
}

TEST_F(LayerCudaTest, PreparesQueriesKeysAndValuesAsTheCpuDoes) {
  const std::vector<uint32_t> positions = {0, 15, 16, 39, 7};
  const auto num_tokens = static_cast<uint32_t>(positions.size());
  for (const Heads& heads : kHeads) {
    for (const bool has_norms : {false, true}) {
      const uint32_t q_width = heads.queries * heads.dim;
      const uint32_t kv_width = heads.kv * heads.dim;
      std::vector<float> cosines(40 * heads.dim / 2), sines(cosines.size());
      FillRopeTable(40, heads.dim, 10000, cosines.data(), sines.data());
      const std::vector<float> q_norm = Random(heads.dim), k_norm = Random(heads.dim);
      std::vector<float> q = Random(num_tokens * q_width), k = Random(num_tokens * kv_width);
      const std::vector<float> v = Random(num_tokens * kv_width);
      std::vector<float> qkv;
      for (uint32_t t = 0; t < num_tokens; ++t) {
        qkv.insert(qkv.end(), q.begin() + t * q_width, q.begin() + (t + 1) * q_width);
        qkv.insert(qkv.end(), k.begin() + t * kv_width, k.begin() + (t + 1) * kv_width);
        qkv.insert(qkv.end(), v.begin() + t * kv_width, v.begin() + (t + 1) * kv_width);
      }
      HostCache host(heads, 16, 40, random_);
      const DeviceCache cache(host);
      const auto prepare = [&](std::vector<float>& x, const std::vector<float>& norm, int64_t n) {
        if (has_norms) {
          RmsNorm(cpu(),
                  {.x = x.data(),
                   .weight = norm.data(),
                   .out = x.data(),
                   .num_rows = num_tokens * n,
                   .width = heads.dim,
                   .epsilon = kEpsilon});
        }
        Rope(cpu(),
             {.x = x.data(),
              .positions = positions.data(),
              .cosines = cosines.data(),
              .sines = sines.data(),
              .num_tokens = num_tokens,
              .num_heads = n,
              .head_dim = heads.dim});
      };
      prepare(q, q_norm, heads.queries);
      prepare(k, k_norm, heads.kv);
      const std::vector<TokenPlace> places = host.Places(positions);
      KvStore(cpu(),
              {.keys = k.data(),
               .values = v.data(),
               .places = places.data(),
               .num_tokens = num_tokens,
               .cache = host.View()});

      const DeviceArray<float> device_qkv(qkv), device_q_norm(q_norm), device_k_norm(k_norm);
      const DeviceArray<float> device_cosines(cosines), device_sines(sines);
      const DeviceArray<uint32_t> device_positions(positions);
      const DeviceArray<uint32_t> sequences(std::vector<uint32_t>(num_tokens, 0));
      const absl::Status status =
          PrepareQkv({.qkv = device_qkv.data(),
                      .query_norm = has_norms ? device_q_norm.data() : nullptr,
                      .key_norm = has_norms ? device_k_norm.data() : nullptr,
                      .cosines = device_cosines.data(),
                      .sines = device_sines.data(),
                      .positions = device_positions.data(),
                      .sequences = sequences.data(),
                      .num_tokens = num_tokens,
                      .num_heads = heads.queries,
                      .epsilon = kEpsilon,
                      .cache = cache.View()},
                     nullptr);
      EXPECT_TRUE(status.ok()) << status;
      const std::vector<float> out = device_qkv.Read();
      for (uint32_t t = 0; t < num_tokens; ++t) {
        const auto row = out.begin() + t * (q_width + 2 * kv_width);
        const std::vector<double> expected(q.begin() + t * q_width, q.begin() + (t + 1) * q_width);
        EXPECT_TRUE(AreNear({row, row + q_width}, expected, 1e-6)) << heads.dim << " at " << t;
      }
      EXPECT_EQ(cache.values.Read(), host.values);  // and nothing elsewhere
      const std::vector<uint16_t> keys = cache.keys.Read();
      std::vector<float> written;
      std::vector<double> expected;
      for (size_t i = 0; i < keys.size(); ++i) {
        ASSERT_EQ(keys[i] == 0xffff, host.keys[i] == 0xffff) << i;
        if (keys[i] == 0xffff) continue;
        written.push_back(FromBfloat16Bits(keys[i]));
        expected.push_back(FromBfloat16Bits(host.keys[i]));
      }
      EXPECT_TRUE(AreNear(written, expected, kOneRounding)) << heads.dim;
    }
  }
}

TEST_F(LayerCudaTest, NormalizesTheRowsThatAreAskedFor) {
  for (const uint32_t width : {8u, 257u, 2880u}) {
    const std::vector<float> x = Random(3 * width), weight = Random(width);
    std::vector<float> expected(x.size());
    RmsNorm(cpu(),
            {.x = x.data(),
             .weight = weight.data(),
             .out = expected.data(),
             .num_rows = 3,
             .width = width,
             .epsilon = kEpsilon});
    const DeviceArray<float> device_x(x), device_weight(weight);
    const DeviceArray<uint32_t> rows(std::vector<uint32_t>{2});
    const auto norm = [&](const uint32_t* which, uint32_t num_rows) {
      const DeviceArray<uint16_t> out(size_t{num_rows} * width);
      const absl::Status status = RmsNorm({.x = device_x.data(),
                                           .rows = which,
                                           .weight = device_weight.data(),
                                           .out = out.data(),
                                           .num_rows = num_rows,
                                           .width = width,
                                           .epsilon = kEpsilon},
                                          nullptr);
      EXPECT_TRUE(status.ok()) << status;
      return out.Read();
    };
    const std::vector<uint16_t> all = norm(nullptr, 3);
    EXPECT_TRUE(AreNear(Widened(all), Doubles(expected), kOneRounding)) << width;
    EXPECT_EQ(norm(rows.data(), 1), std::vector(all.begin() + 2 * width, all.end())) << width;
  }
}

TEST_F(LayerCudaTest, RoutesToTheLargestLogitsAndOfEqualOnesToTheLowerId) {
  struct Shape {
    uint32_t width, experts, chosen;
  };
  for (const Shape& s :
       {Shape{8, 1, 1}, {512, 8, 1}, {2880, 32, 4}, {2048, 128, 8}, {40, 300, 3}}) {
    for (const bool renormalize : {false, true}) {
      constexpr uint32_t kTokens = 5;
      std::vector<float> gate = Random(size_t{s.experts} * s.width);
      for (float& g : gate) g /= std::sqrt(static_cast<float>(s.width));
      // Every expert but those of the first half is another's twin.
      const size_t half = gate.size() / s.width / 2 * s.width;
      std::copy_n(gate.begin(), half, gate.end() - half);
      const std::vector<uint16_t> x = Rounded(Random(kTokens * s.width));
      const DeviceArray<float> device_gate(gate);
      const auto route = [&](const std::vector<uint16_t>& rows) {
        const auto num_tokens = static_cast<uint32_t>(rows.size() / s.width);
        const DeviceArray<uint16_t> device_x(rows);
        const DeviceArray<float> logits(num_tokens * s.experts), weights(num_tokens * s.chosen);
        const DeviceArray<uint32_t> ids(num_tokens * s.chosen);
        const absl::Status status = Route({.x = device_x.data(),
                                           .gate = device_gate.data(),
                                           .logits = logits.data(),
                                           .expert_ids = ids.data(),
                                           .weights = weights.data(),
                                           .num_tokens = num_tokens,
                                           .width = s.width,
                                           .num_experts = s.experts,
                                           .num_chosen = s.chosen,
                                           .renormalize = renormalize},
                                          nullptr);
        EXPECT_TRUE(status.ok()) << status;
        return std::make_tuple(logits.Read(), ids.Read(), weights.Read());
      };
      const auto [logits, ids, weights] = route(x);
      for (uint32_t t = 0; t < kTokens; ++t) {
        const float* own = &logits[t * s.experts];
        const std::vector<float> row =
            Widened({x.begin() + t * s.width, x.begin() + (t + 1) * s.width});
        std::vector<double> exact;
        for (uint32_t e = 0; e < s.experts; ++e) {
          exact.push_back(std::inner_product(row.begin(), row.end(), &gate[e * s.width], 0.0));
        }
        EXPECT_TRUE(AreNear({own, own + s.experts}, exact, 2e-6)) << s.experts;
        std::vector<uint32_t> order(s.experts);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(
            order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return own[a] > own[b]; });
        order.resize(s.chosen);
        EXPECT_EQ(std::vector(&ids[t * s.chosen], &ids[t * s.chosen] + s.chosen), order);
        double all = 0;
        for (uint32_t e = 0; e < s.experts; ++e) all += std::exp(exact[e]);
        double chosen = 0;
        for (const uint32_t id : order) chosen += std::exp(exact[id]);
        std::vector<double> expected;
        for (const uint32_t id : order) {
          expected.push_back(std::exp(exact[id]) / (renormalize ? chosen : all));
        }
        const float* own_weights = &weights[t * s.chosen];
        EXPECT_TRUE(AreNear({own_weights, own_weights + s.chosen}, expected, 1e-5)) << s.experts;
        const auto [alone_logits, alone_ids, alone_weights] =
            route({x.begin() + t * s.width, x.begin() + (t + 1) * s.width});
        EXPECT_TRUE(SameBits(alone_logits, {own, own + s.experts}));
        EXPECT_EQ(alone_ids, order);
        EXPECT_TRUE(SameBits(alone_weights, {own_weights, own_weights + s.chosen}));
      }
    }
  }
}

}  // namespace
}  // namespace pregate
