#include "bench/perplexity.h"

#include <cmath>
#include <numeric>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::FieldsAre;

// (first token, tokens, first scored) of the windows over tokens 0, 1, 2 …
std::vector<std::tuple<uint32_t, size_t, size_t>> Cut(size_t num_tokens, uint32_t context) {
  std::vector<uint32_t> tokens(num_tokens);
  std::iota(tokens.begin(), tokens.end(), 0u);
  std::vector<std::tuple<uint32_t, size_t, size_t>> cut;
  for (const Window& window : CutWindows(tokens, context)) {
    cut.emplace_back(window.tokens.front(), window.tokens.size(), window.first_scored);
  }
  return cut;
}

TEST(CutWindows, LeavesAShortDocumentWhole) {
  EXPECT_THAT(Cut(2, 8), ElementsAre(FieldsAre(0, 2, 1)));
  EXPECT_THAT(Cut(9, 8), ElementsAre(FieldsAre(0, 9, 1)));
}

TEST(CutWindows, StridesHalfTheContext) {
  EXPECT_THAT(Cut(10, 8), ElementsAre(FieldsAre(0, 9, 1), FieldsAre(4, 6, 5)));
  EXPECT_THAT(Cut(17, 8), ElementsAre(FieldsAre(0, 9, 1), FieldsAre(4, 9, 5), FieldsAre(8, 9, 5)));
}

TEST(CutWindows, ScoreEachTokenButTheFirstOnce) {
  for (const uint32_t context : {2u, 3u, 7u, 8u}) {
    for (size_t num_tokens = 2; num_tokens < 40; ++num_tokens) {
      std::vector<int> scored(num_tokens);
      for (const auto& [first, size, first_scored] : Cut(num_tokens, context)) {
        EXPECT_LE(size, context + 1u);
        for (size_t i = first_scored; i < size; ++i) ++scored[first + i];
      }
      EXPECT_EQ(scored[0], 0);
      for (size_t i = 1; i < num_tokens; ++i) EXPECT_EQ(scored[i], 1) << i << " of " << num_tokens;
    }
  }
}

// A byte is a token; every token costs as many nats as it has been read with tokens before it.
PerplexityOptions Options() {
  return {.context = 4,
          .eos_token_id = 0,
          .batch_tokens = 6,
          .encode =
              [](absl::string_view document) {
                return std::vector<uint32_t>(document.begin(), document.end());
              },
          .score =
              [](absl::Span<const Window> windows) {
                double nats = 0;
                for (const Window& window : windows) {
                  for (size_t i = window.first_scored; i < window.tokens.size(); ++i) {
                    nats += static_cast<double>(i);
                  }
                }
                return nats;
              }};
}

TEST(MeasurePerplexity, CountsDocumentsApartAndAllBytes) {
  // [0 a b c \n 0] is read in windows of 4: 1+2+3+4 nats, then its end, after [b c \n]: 3 nats.
  // [0 d \n 0]: 1+2+3.
  const auto result = MeasurePerplexity("abc\n\x1e\nd\n\x1e\n", Options());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->tokens, 5u + 3u);
  EXPECT_EQ(result->bytes, 10u);
  EXPECT_EQ(result->nll_nats, 13 + 6);
  EXPECT_DOUBLE_EQ(result->bits_per_byte(), 19 / std::log(2.0) / 10);
  EXPECT_DOUBLE_EQ(result->perplexity(), std::exp(19.0 / 8));
}

TEST(MeasurePerplexity, DoesNotDependOnTheBatch) {
  PerplexityOptions options = Options();
  const std::string text = "a long enough document\n\x1e\nand another\n\x1e\n\x1e\nlast";
  const double expected = MeasurePerplexity(text, options)->nll_nats;
  for (const size_t batch_tokens : {4, 17, 1000}) {
    options.batch_tokens = batch_tokens;
    EXPECT_EQ(MeasurePerplexity(text, options)->nll_nats, expected) << batch_tokens;
  }
}

TEST(MeasurePerplexity, FillsBatchesUpToTheirSize) {
  PerplexityOptions options = Options();
  std::vector<size_t> batches;
  options.score = [&](absl::Span<const Window> windows) {
    batches.push_back(0);
    for (const Window& window : windows) batches.back() += window.tokens.size() - 1;
    return 0.0;
  };
  // Documents of 3 and 3 tokens, then one in windows of 4 and 3.
  ASSERT_TRUE(MeasurePerplexity("a\n\x1e\nb\n\x1e\nabcd", options).ok());
  EXPECT_THAT(batches, ElementsAre(6, 4, 3));
}

TEST(MeasurePerplexity, PassesErrorsOn) {
  EXPECT_EQ(MeasurePerplexity("", Options()).status().message(), "the text is empty");
  PerplexityOptions options = Options();
  options.encode = [](absl::string_view) { return absl::InternalError("encode"); };
  EXPECT_EQ(MeasurePerplexity("a", options).status().message(), "encode");
  options = Options();
  options.score = [](absl::Span<const Window>) { return absl::InternalError("score"); };
  EXPECT_EQ(MeasurePerplexity("a", options).status().message(), "score");
}

}  // namespace
}  // namespace pregate
