#include "core/kernel/sampling.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "core/kernel/philox.h"
#include "tests/unit/kernel/kernel_levels.h"

namespace pregate {
namespace {

using testing::HasSubstr;

// The known answers that come with the authors' Random123 library.
TEST(PhiloxTest, AgreesWithItsAuthors) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(Philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(UniformAtTest, IsUniformAndAFunctionOfSeedAndPosition) {
  std::set<double> seen;
  double sum = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (uint64_t position = 0; position < 100; ++position) {
      const double x = UniformAt(seed, position);
      EXPECT_EQ(x, UniformAt(seed, position));
      EXPECT_GE(x, 0);
      EXPECT_LT(x, 1);
      seen.insert(x);
      sum += x;
    }
  }
  EXPECT_EQ(seen.size(), 2000u);
  EXPECT_NEAR(sum / 2000, 0.5, 0.02);
}

class SamplerTest : public KernelLevelTest {
 protected:
  // How often each token is drawn at the positions 0 … count - 1.
  std::map<uint32_t, int> Draw(const std::vector<float>& logits,
                               Sampler::Parameters parameters,
                               int count) {
    Sampler sampler(cpu());
    std::map<uint32_t, int> drawn;
    for (int i = 0; i < count; ++i) {
      parameters.position = static_cast<uint64_t>(i);
      ++drawn[sampler.Draw(logits, parameters).value()];
    }
    return drawn;
  }
};
PREGATE_INSTANTIATE_LEVELS(SamplerTest);

TEST_P(SamplerTest, TemperatureZeroTakesTheMostLikelyAndOfEqualsTheFirst) {
  EXPECT_EQ(Draw({1, 5, 2, 5}, {.temperature = 0}, 3), (std::map<uint32_t, int>{{1, 3}}));
}

TEST_P(SamplerTest, FollowsTheProbabilities) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  std::map<uint32_t, int> drawn = Draw(logits, {}, 4000);
  EXPECT_NEAR(drawn[0], 2000, 120);
  EXPECT_NEAR(drawn[1], 1200, 120);
  // At temperature 1/2 the probabilities are squared: 25 : 9 : 4.
  drawn = Draw(logits, {.temperature = 0.5f}, 3800);
  EXPECT_NEAR(drawn[0], 2500, 120);
  EXPECT_NEAR(drawn[2], 400, 80);
}

TEST_P(SamplerTest, TopKKeepsTheMostLikelyAndOfEqualsTheFirst) {
  const std::vector<float> logits = {0, 1, 3, 1, 1};
  const std::map<uint32_t, int> drawn = Draw(logits, {.top_k = 3}, 500);
  EXPECT_EQ(drawn.size(), 3u);
  EXPECT_TRUE(drawn.contains(1) && drawn.contains(2) && drawn.contains(3));
  EXPECT_EQ(Draw(logits, {.top_k = 1}, 20).size(), 1u);
  EXPECT_EQ(Draw(logits, {.top_k = 99}, 500).size(), 5u);
}

TEST_P(SamplerTest, TopPKeepsTheFewestThatSuffice) {
  const std::vector<float> logits = {
      std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
  const auto kept = [&](Sampler::Parameters parameters) {
    std::vector<uint32_t> ids;
    for (const auto& [id, count] : Draw(logits, parameters, 500)) ids.push_back(id);
    return ids;
  };
  EXPECT_EQ(kept({.top_p = 0.01f}), (std::vector<uint32_t>{1}));
  EXPECT_EQ(kept({.top_p = 0.39f}), (std::vector<uint32_t>{1}));
  EXPECT_EQ(kept({.top_p = 0.69f}), (std::vector<uint32_t>{1, 3}));
  EXPECT_EQ(kept({.top_p = 0.71f}), (std::vector<uint32_t>{1, 2, 3}));
  EXPECT_EQ(kept({.top_p = 0.99f}), (std::vector<uint32_t>{0, 1, 2, 3}));
  // The share is of what top_k leaves: 4 : 3 of 7.
  EXPECT_EQ(kept({.top_k = 2, .top_p = 0.5f}), (std::vector<uint32_t>{1}));
  // And of what temperature makes of it.
  EXPECT_EQ(kept({.temperature = 0.25f, .top_p = 0.7f}), (std::vector<uint32_t>{1}));
}

TEST_P(SamplerTest, NeverDrawsWhatHasNoWeight) {
  std::vector<float> logits(100, -1000);
  logits[40] = 5;
  EXPECT_EQ(Draw(logits, {}, 200), (std::map<uint32_t, int>{{40, 200}}));
  EXPECT_EQ(Draw(logits, {.temperature = 1e-40f}, 20), (std::map<uint32_t, int>{{40, 20}}));
}

TEST_P(SamplerTest, DrawsTheSameAtEveryLevelAndHoweverItIsCut) {
  const std::vector<float> logits = Random(5000, 3);
  for (const Sampler::Parameters& base :
       {Sampler::Parameters{}, {.top_p = 0.9f}, {.temperature = 2, .top_k = 50}}) {
    Sampler here(cpu());
    Sampler cut(cut_cpu());
    Sampler elsewhere(baseline());
    for (uint64_t position = 0; position < 50; ++position) {
      Sampler::Parameters parameters = base;
      parameters.seed = 5;
      parameters.position = position;
      const uint32_t token = here.Draw(logits, parameters).value();
      EXPECT_EQ(token, elsewhere.Draw(logits, parameters).value());
      EXPECT_EQ(token, cut.Draw(logits, parameters).value());
    }
  }
}

TEST_P(SamplerTest, NamesALogitThatIsNotFinite) {
  Sampler sampler(cpu());
  for (const float bad : {kPoison, INFINITY, -INFINITY}) {
    const absl::Status status = sampler.Draw(std::vector<float>{0, 1, bad, 2}, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(status.message(), HasSubstr("token 2"));
  }
}

TEST_P(SamplerTest, LogprobsAreTheLogSoftmax) {
  for (const size_t count : {3, 16, 1000}) {
    const std::vector<float> logits = Random(count, 10);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit});
    Sampler sampler(cpu());
    const Sampler::Logprobs logprobs = sampler.LogprobsOf(logits, 1, 3);
    EXPECT_NEAR(logprobs.chosen, logits[1] - std::log(sum), 1e-5);
    ASSERT_EQ(logprobs.top.size(), 3u);
    std::vector<float> sorted = logits;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(logits[logprobs.top[i].first], sorted[i]);
      EXPECT_NEAR(logprobs.top[i].second, sorted[i] - std::log(sum), 1e-5);
    }
  }
}

TEST_P(SamplerTest, LogprobsOrderEqualsById) {
  Sampler sampler(cpu());
  const Sampler::Logprobs logprobs = sampler.LogprobsOf(std::vector<float>{1, 2, 2, 1}, 0, 4);
  std::vector<uint32_t> ids;
  for (const auto& [id, logprob] : logprobs.top) ids.push_back(id);
  EXPECT_EQ(ids, (std::vector<uint32_t>{1, 2, 0, 3}));
  EXPECT_TRUE(sampler.LogprobsOf(std::vector<float>{1, 2}, 0, 0).top.empty());
}

}  // namespace
}  // namespace pregate
