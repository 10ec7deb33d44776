// The transformer against the reference in double precision, and against itself: a sequence's
// logits are the same bits in any batch.
#include "core/model/transformer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>

#include "core/model/torch_runner.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/model/reference_model.h"
#include "tests/unit/model/tiny_model.h"

namespace pregate {
namespace {

const Logger& Quiet() {
  static const Logger logger(LogLevel::kError);
  return logger;
}

struct Case {
  const char* name;
  TinyModel (*make)();
  const char* dtype;
  const char* cpu_isa;
  uint32_t threads;
};

constexpr uint32_t kBlockSize = 4;
constexpr uint32_t kMaxTokens = 40;
constexpr uint32_t kVocab = 96;

class TransformerTest : public testing::TestWithParam<Case> {
 protected:
  TransformerTest() : model_(GetParam().make()) {
    model_.Write(folder_.path());
    EngineOptions options;
    options.model = folder_.path();
    options.dtype = GetParam().dtype;
    options.cpu_isa = GetParam().cpu_isa;
    options.threads = GetParam().threads;
    options.max_batch_tokens = kMaxTokens;
    options.max_running = 8;
    options.kv_block_size = kBlockSize;
    absl::StatusOr<std::unique_ptr<TorchRunner>> runner = TorchRunner::Load(options, Quiet());
    if (!runner.ok()) throw std::runtime_error(runner.status().ToString());
    runner_ = *std::move(runner);
  }

  static std::vector<uint32_t> RandomTokens(size_t count, uint32_t seed) {
    std::mt19937 engine(seed);
    std::vector<uint32_t> ids(count);
    for (uint32_t& id : ids) id = engine() % kVocab;
    return ids;
  }

  // Blocks [first, first + enough for `tokens`), in an order that is not theirs.
  static std::vector<uint32_t> Blocks(uint32_t first, size_t tokens) {
    std::vector<uint32_t> blocks((tokens + kBlockSize - 1) / kBlockSize);
    std::iota(blocks.rbegin(), blocks.rend(), first);
    return blocks;
  }

  std::vector<float> Logits(const std::vector<TokenRun>& runs,
                            const std::vector<uint32_t>& logit_tokens,
                            Routing* routing = nullptr) {
    const absl::StatusOr<absl::Span<const float>> logits =
        runner_->Forward({.runs = runs, .logit_tokens = logit_tokens}, routing);
    EXPECT_TRUE(logits.ok()) << logits.status();
    return std::vector<float>(logits->begin(), logits->end());
  }

  // All logits of a sequence by itself, its tokens cut into pieces of `piece`.
  std::vector<float> Alone(const std::vector<uint32_t>& ids, size_t piece) {
    const std::vector<uint32_t> blocks = Blocks(50, ids.size());
    std::vector<float> all;
    for (size_t begin = 0; begin < ids.size(); begin += piece) {
      const size_t count = std::min(piece, ids.size() - begin);
      std::vector<uint32_t> rows(count);
      std::iota(rows.begin(), rows.end(), 0);
      const std::vector<float> logits =
          Logits({{.token_ids = absl::MakeConstSpan(ids).subspan(begin, count),
                   .first_position = static_cast<uint32_t>(begin),
                   .blocks = blocks}},
                 rows);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  }

  static testing::AssertionResult SameBits(absl::Span<const float> a, absl::Span<const float> b) {
    if (a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << "other bits";
  }

  TempFolder folder_;
  TinyModel model_;
  std::unique_ptr<TorchRunner> runner_;
};

TEST_P(TransformerTest, AgreesWithTheReference) {
  const std::vector<uint32_t> ids = RandomTokens(33, 1);
  const ReferenceModel::Result expected = ReferenceModel(model_).Run(ids);
  std::vector<uint32_t> rows(ids.size());
  std::iota(rows.begin(), rows.end(), 0);
  Routing routing;
  const std::vector<uint32_t> blocks = Blocks(3, ids.size());
  const std::vector<float> logits =
      Logits({{.token_ids = ids, .first_position = 0, .blocks = blocks}}, rows, &routing);

  std::vector<double> errors;  // ‖difference‖ / ‖reference‖ of each token
  for (size_t t = 0; t < ids.size(); ++t) {
    double difference = 0;
    double norm = 0;
    for (size_t i = 0; i < kVocab; ++i) {
      difference += std::pow(logits[t * kVocab + i] - expected.logits[t][i], 2);
      norm += std::pow(expected.logits[t][i], 2);
    }
    errors.push_back(std::sqrt(difference / norm));
  }
  std::sort(errors.begin(), errors.end());
  const bool is_float32 = runner_->description().dtype == "float32";
  if (is_float32) {
    EXPECT_LE(errors.back(), 1e-5);
  } else {
    // Rounding turns a router's choice now and then, which shows in a few tokens.
    EXPECT_LE(errors[errors.size() / 2], 3e-2);
  }
  if (!is_float32) return;
  for (uint32_t layer = 0; layer < routing.num_layers; ++layer) {
    for (uint32_t t = 0; t < ids.size(); ++t) {
      EXPECT_THAT(routing.ExpertsOf(layer, t),
                  testing::ElementsAreArray(expected.experts[layer][t]));
    }
  }
}

TEST_P(TransformerTest, APromptMayBeCutAnywhere) {
  const std::vector<uint32_t> ids = RandomTokens(39, 2);
  const std::vector<float> whole = Alone(ids, ids.size());
  for (const size_t piece : {1, 2, 3, 7, 8, 9, 16, 31}) {
    EXPECT_TRUE(SameBits(Alone(ids, piece), whole)) << piece;
  }
}

// Sequences of several lengths, some in prefill and some in decode, side by side in any order.
TEST_P(TransformerTest, NeighboursDoNotMatter) {
  constexpr size_t kSequences = 6;
  const size_t lengths[kSequences] = {1, 5, 8, 13, 22, 39};
  std::vector<std::vector<uint32_t>> ids;
  std::vector<std::vector<float>> alone;
  std::vector<std::vector<uint32_t>> blocks;
  for (uint32_t s = 0; s < kSequences; ++s) {
    ids.push_back(RandomTokens(lengths[s], 10 + s));
    alone.push_back(Alone(ids[s], ids[s].size()));
    blocks.push_back(Blocks(10 * s, lengths[s]));
  }
  std::mt19937 engine(4);
  for (int round = 0; round < 3; ++round) {
    size_t done[kSequences] = {};
    size_t left = kSequences;
    while (left > 0) {
      std::vector<size_t> order(kSequences);
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), engine);
      std::vector<TokenRun> runs;
      std::vector<uint32_t> rows;
      std::vector<std::pair<size_t, size_t>> places;  // sequence and position of each row
      size_t tokens = 0;
      for (const size_t s : order) {
        const size_t rest = lengths[s] - done[s];
        if (rest == 0 || engine() % 4 == 0) continue;
        const size_t count = std::min({rest, 1 + engine() % 6, kMaxTokens - tokens});
        runs.push_back({.token_ids = absl::MakeConstSpan(ids[s]).subspan(done[s], count),
                        .first_position = static_cast<uint32_t>(done[s]),
                        .blocks = blocks[s]});
        for (size_t i = 0; i < count; ++i) {
          rows.push_back(static_cast<uint32_t>(tokens + i));
          places.emplace_back(s, done[s] + i);
        }
        tokens += count;
        done[s] += count;
        if (done[s] == lengths[s]) --left;
      }
      if (runs.empty()) continue;
      const std::vector<float> logits = Logits(runs, rows);
      for (size_t row = 0; row < places.size(); ++row) {
        const auto [s, position] = places[row];
        ASSERT_TRUE(SameBits(absl::MakeConstSpan(logits).subspan(row * kVocab, kVocab),
                             absl::MakeConstSpan(alone[s]).subspan(position * kVocab, kVocab)))
            << "sequence " << s << ", position " << position;
      }
    }
  }
}

TEST_P(TransformerTest, LogitsComeInTheOrderAskedFor) {
  const std::vector<uint32_t> ids = RandomTokens(12, 5);
  const std::vector<float> whole = Alone(ids, ids.size());
  const std::vector<uint32_t> blocks = Blocks(0, ids.size());
  const TokenRun run = {.token_ids = ids, .first_position = 0, .blocks = blocks};
  const std::vector<float> some = Logits({run}, {11, 0, 5});
  size_t row = 0;
  for (const size_t token : {11, 0, 5}) {
    EXPECT_TRUE(SameBits(absl::MakeConstSpan(some).subspan(row++ * kVocab, kVocab),
                         absl::MakeConstSpan(whole).subspan(token * kVocab, kVocab)));
  }
  EXPECT_TRUE(Logits({run}, {}).empty());
}

TEST_P(TransformerTest, RefusesWhatBreaksALimit) {
  const std::vector<uint32_t> ids = RandomTokens(8, 6);
  const std::vector<uint32_t> blocks = Blocks(0, 8);
  const TokenRun good = {.token_ids = ids, .first_position = 0, .blocks = blocks};
  const auto message = [&](const TokenRun& run, std::vector<uint32_t> logit_tokens) {
    const absl::Status status =
        runner_->Forward({.runs = {&run, 1}, .logit_tokens = logit_tokens}, nullptr).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  TokenRun run = good;
  const std::vector<uint32_t> bad_ids = {3, 96};
  run.token_ids = bad_ids;
  EXPECT_THAT(message(run, {0}), testing::HasSubstr("token id 96"));
  run = good;
  run.first_position = 121;
  EXPECT_THAT(message(run, {0}), testing::HasSubstr("position 128 is beyond the context of 128"));
  run = good;
  run.first_position = 1;
  EXPECT_THAT(message(run, {0}), testing::HasSubstr("position 8 is beyond the 2 KV blocks"));
  run = good;
  const std::vector<uint32_t> bad_blocks = {0, 1u << 30};
  run.blocks = bad_blocks;
  EXPECT_THAT(message(run, {0}), testing::HasSubstr("KV block 1073741824"));
  EXPECT_THAT(message(good, {8}), testing::HasSubstr("logits of token 8"));
  const std::vector<uint32_t> many = RandomTokens(kMaxTokens + 1, 7);
  const std::vector<uint32_t> many_blocks = Blocks(0, many.size());
  run = {.token_ids = many, .first_position = 0, .blocks = many_blocks};
  EXPECT_THAT(message(run, {0}), testing::HasSubstr("more than 40 tokens"));
}

TEST_P(TransformerTest, MeasuresItsProducts) {
  const std::vector<uint32_t> ids = RandomTokens(9, 8);
  const std::vector<uint32_t> blocks = Blocks(0, 9);
  Routing routing;
  Logits({{.token_ids = ids, .first_position = 0, .blocks = blocks}}, {8}, &routing);
  EXPECT_EQ(routing.num_tokens, 9u);
  EXPECT_GT(runner_->MeasureProducts(routing, 1, 2).value(), 0);
}

TinyModel Qwen3Moe() { return MakeTinyQwen3Moe(); }
TinyModel Qwen3MoeBfloat16() { return MakeTinyQwen3Moe(Dtype::kBfloat16); }
TinyModel Switch() { return MakeTinySwitch(); }
TinyModel SwitchBfloat16() { return MakeTinySwitch(Dtype::kBfloat16); }
TinyModel ConventionalSwitch() { return MakeTinySwitch(Dtype::kFloat32, false); }

INSTANTIATE_TEST_SUITE_P(
    Models,
    TransformerTest,
    testing::Values(Case{"Qwen3Moe", Qwen3Moe, "auto", "auto", 1},
                    Case{"Qwen3MoeConverted", Qwen3MoeBfloat16, "float32", "auto", 1},
                    Case{"Qwen3MoeBfloat16", Qwen3MoeBfloat16, "auto", "auto", 1},
                    Case{"Qwen3MoeBaseline", Qwen3Moe, "auto", "baseline", 1},
                    Case{"Switch", Switch, "auto", "auto", 1},
                    Case{"SwitchTwoThreads", Switch, "auto", "auto", 2},
                    Case{"SwitchRounded", Switch, "bfloat16", "auto", 1},
                    Case{"SwitchBfloat16", SwitchBfloat16, "auto", "auto", 1},
                    Case{"ConventionalSwitch", ConventionalSwitch, "auto", "auto", 1}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace pregate
