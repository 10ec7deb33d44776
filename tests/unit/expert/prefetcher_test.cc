#include "core/expert/prefetcher.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recorded_stats.h"
#include "tests/support/synthetic_routing.h"

namespace pregate {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr PredictorShape kShape = {.num_layers = 4,
                                   .num_experts = 8,
                                   .experts_per_token = 2,
                                   .is_pregated = true,
                                   .has_gates = true};

// Notes the hints, and begins as many loads as it may of those that are not `resident`.
class FakeSink final : public HintSink {
 public:
  uint32_t Hint(absl::Span<const ExpertHint> hints, uint32_t max_loads) override {
    ++calls;
    last.assign(hints.begin(), hints.end());
    last_max_loads = max_loads;
    const auto begun = is_resident ? 0 : std::min<uint32_t>(max_loads, last.size());
    pace.hinted.useful += begun;
    return begun;
  }
  ExpertCache::Pace ReadPace() const override { return pace; }

  int calls = 0;
  std::vector<ExpertHint> last;
  uint32_t last_max_loads = 0;
  bool is_resident = false;
  ExpertCache::Pace pace = {.load_seconds = 0.004, .hinted = {}};
};

// Says what it is told to.
class ToldPredictor final : public ExpertPredictor {
 public:
  explicit ToldPredictor(std::vector<std::vector<ExpertPrediction>> by_distance)
      : by_distance_(std::move(by_distance)) {}
  absl::string_view name() const override { return "told"; }
  void Observe(const RoutedLayer&) override { ++observed; }
  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override {
    predictions = by_distance_[distance - 1];
  }
  int observed = 0;

 private:
  const std::vector<std::vector<ExpertPrediction>> by_distance_;
};

// Two experts of the next layer that it will not need, for sure.
class WrongPredictor final : public ExpertPredictor {
 public:
  explicit WrongPredictor(const SyntheticRouting& routing) : routing_(routing) {}
  absl::string_view name() const override { return "wrong"; }
  void Observe(const RoutedLayer& routed) override { layer_ = routed.layer; }
  void Predict(uint32_t distance, std::vector<ExpertPrediction>& predictions) override {
    predictions.clear();
    const std::vector<uint32_t> needed = routing_.Needed(layer_ + distance);
    for (uint32_t expert = 0; expert < kShape.num_experts && predictions.size() < 2; ++expert) {
      const bool is_needed = std::find(needed.begin(), needed.end(), expert) != needed.end();
      if (!is_needed) predictions.push_back({.expert = expert, .probability = 1});
    }
  }

 private:
  const SyntheticRouting& routing_;
  uint32_t layer_ = 0;
};

class PrefetcherTest : public testing::Test {
 protected:
  std::unique_ptr<Prefetcher> Make(const Prefetcher::Settings& settings) {
    return Prefetcher::Create(kShape, settings, sink_, clock_).value();
  }
  std::unique_ptr<Prefetcher> MakeWrong() {
    std::unique_ptr<Prefetcher> prefetcher = Make({.mode = "none", .aggressiveness = 1});
    prefetcher->UsePredictor(std::make_unique<WrongPredictor>(routing_));
    return prefetcher;
  }
  // A step of one token of one sequence, in layers of ten milliseconds each.
  void Step(Prefetcher& prefetcher) {
    routing_.BeginStep({1});
    for (uint32_t layer = 0; layer < kShape.num_layers; ++layer) {
      prefetcher.OnRouted(routing_.Layer(layer));
      clock_.Advance(std::chrono::milliseconds(10));
    }
  }
  std::vector<ExpertId> Hinted() const {
    std::vector<ExpertId> ids;
    for (const ExpertHint& hint : sink_.last) ids.push_back(hint.id);
    return ids;
  }

  FakeSink sink_;
  FakeClock clock_;
  SyntheticRouting routing_{kShape, true};
};

TEST_F(PrefetcherTest, HintsTheNearerLayerAndTheMoreProbableFirst) {
  const auto prefetcher =
      Make({.mode = "none", .lookahead = 2, .aggressiveness = 1, .confidence = 0.2});
  prefetcher->UsePredictor(std::make_unique<ToldPredictor>(
      std::vector<std::vector<ExpertPrediction>>{{{5, 0.6F}, {1, 0.3F}, {2, 0.1F}}, {{7, 0.9F}}}));
  routing_.BeginStep({1});
  prefetcher->OnRouted(routing_.Layer(0));
  EXPECT_THAT(Hinted(), ElementsAre(ExpertId{1, 5}, ExpertId{1, 1}, ExpertId{2, 7}));
  EXPECT_EQ(sink_.last[1].probability, 0.3F);
  prefetcher->OnRouted(routing_.Layer(1));
  prefetcher->OnRouted(routing_.Layer(2));
  EXPECT_THAT(Hinted(), ElementsAre(ExpertId{3, 5}, ExpertId{3, 1}));  // there is no layer 4
  prefetcher->OnRouted(routing_.Layer(3));
  EXPECT_THAT(Hinted(), IsEmpty());
}

TEST_F(PrefetcherTest, CoversAsMuchAsItIsAggressive) {
  for (const auto& [aggressiveness, hints] :
       std::vector<std::pair<double, size_t>>{{0, 0}, {0.5, 1}, {0.7, 2}, {1, 3}}) {
    const auto prefetcher = Make({.mode = "none", .aggressiveness = aggressiveness});
    prefetcher->UsePredictor(std::make_unique<ToldPredictor>(
        std::vector<std::vector<ExpertPrediction>>{{{5, 0.5F}, {1, 0.25F}, {2, 0.25F}}}));
    routing_.BeginStep({1});
    prefetcher->OnRouted(routing_.Layer(0));
    EXPECT_EQ(sink_.last.size(), hints) << aggressiveness;
    EXPECT_EQ(prefetcher->IsEnabled(1), hints > 0) << aggressiveness;
  }
}

TEST_F(PrefetcherTest, BeginsNoMoreLoadsInVainThanTheLinkCarriesMeanwhile) {
  const auto prefetcher = MakeWrong();
  routing_.BeginStep({1});
  std::vector<uint32_t> max_loads;
  for (uint32_t layer = 0; layer < kShape.num_layers; ++layer) {
    prefetcher->OnRouted(routing_.Layer(layer));
    max_loads.push_back(sink_.last_max_loads);
    clock_.Advance(std::chrono::milliseconds(10));
  }
  // Two and a half loads of four milliseconds a layer, of which each takes two at most.
  EXPECT_THAT(max_loads, ElementsAre(0, 2, 3, 3));
}

// Copies of two and a half layers: what would be needed anyway may begin as early as it is known.
TEST_F(PrefetcherTest, WhatIsForeseenRightlyCostsNothing) {
  sink_.pace.load_seconds = 0.025;
  const auto prefetcher = Make({.mode = "pregate", .aggressiveness = 1});
  for (int step = 0; step < 50; ++step) Step(*prefetcher);
  routing_.BeginStep({1});
  for (uint32_t layer = 0; layer + 1 < kShape.num_layers; ++layer) {
    prefetcher->OnRouted(routing_.Layer(layer));
    EXPECT_GE(sink_.last_max_loads, 2) << "both experts of layer " << layer + 1;
    clock_.Advance(std::chrono::milliseconds(10));
  }
}

TEST_F(PrefetcherTest, SavesUpForALoadThatTakesLongerThanALayer) {
  sink_.pace.load_seconds = 0.025;
  const auto prefetcher = MakeWrong();
  Step(*prefetcher);
  std::vector<uint32_t> max_loads;
  for (int step = 0; step < 3; ++step) {
    routing_.BeginStep({1});
    for (uint32_t layer = 0; layer + 1 < kShape.num_layers; ++layer) {
      prefetcher->OnRouted(routing_.Layer(layer));
      max_loads.push_back(sink_.last_max_loads);
      clock_.Advance(std::chrono::milliseconds(10));
    }
  }
  // 0.4 loads a layer.
  EXPECT_EQ(std::accumulate(max_loads.begin(), max_loads.end(), 0U), 4);
  EXPECT_LE(*std::max_element(max_loads.begin(), max_loads.end()), 1);
}

TEST_F(PrefetcherTest, DoesNotSpendTheTimeOfStalls) {
  const auto prefetcher = MakeWrong();
  routing_.BeginStep({1});
  prefetcher->OnRouted(routing_.Layer(0));
  clock_.Advance(std::chrono::milliseconds(10));
  sink_.pace.stall_seconds += 0.009;  // of ten milliseconds
  prefetcher->OnRouted(routing_.Layer(1));
  EXPECT_EQ(sink_.last_max_loads, 0);
}

TEST_F(PrefetcherTest, LoadsNothingWhileItDoesNotKnowTheLink) {
  sink_.pace.load_seconds = 0;
  const auto prefetcher = Make({.mode = "pregate", .aggressiveness = 1});
  Step(*prefetcher);
  EXPECT_EQ(sink_.pace.hinted.useful, 0);
}

TEST_F(PrefetcherTest, CountsWhatItPredictedAndWhatWasRight) {
  const auto prefetcher = Make({.mode = "pregate", .aggressiveness = 1});
  Step(*prefetcher);
  EXPECT_EQ(prefetcher->Read().predicted, 6);  // two experts in each of three layers
  EXPECT_EQ(prefetcher->Read().correct, 6);
  EXPECT_EQ(prefetcher->Read().settings.mode, "pregate");
  RecordedStats stats;
  prefetcher->VisitStats(stats);
  EXPECT_EQ(stats.violation(), "");
  EXPECT_EQ(stats.value("speculation_predicted_total{mode=\"pregate\"}"), 6);
  EXPECT_EQ(stats.value("speculation_correct_total{mode=\"pregate\"}"), 6);
  EXPECT_EQ(stats.value("speculation_correct_total{mode=\"multi_layer\"}"), 0);
}

TEST_F(PrefetcherTest, CountsWhatTwoLayersForesawOnce) {
  const auto prefetcher = Make({.mode = "none", .lookahead = 2, .aggressiveness = 1});
  prefetcher->UsePredictor(std::make_unique<ToldPredictor>(
      std::vector<std::vector<ExpertPrediction>>{{{0, 1.0F}}, {{0, 1.0F}}}));
  Step(*prefetcher);
  EXPECT_EQ(prefetcher->Read().predicted, 3);
}

TEST_F(PrefetcherTest, ChangesItsModeWithTheNextStep) {
  const auto prefetcher = Make({.mode = "none"});
  routing_.BeginStep({1});
  prefetcher->OnRouted(routing_.Layer(0));
  ASSERT_TRUE(prefetcher->Set({.mode = "pregate"}).ok());
  prefetcher->OnRouted(routing_.Layer(1));
  EXPECT_EQ(sink_.calls, 0);
  prefetcher->OnRouted(routing_.Layer(0));
  EXPECT_EQ(sink_.calls, 1);
  ASSERT_TRUE(prefetcher->Set({.mode = "none"}).ok());
  prefetcher->OnRouted(routing_.Layer(0));
  EXPECT_EQ(sink_.calls, 2);  // takes back what was expected
  EXPECT_THAT(sink_.last, IsEmpty());
}

TEST_F(PrefetcherTest, KeepsWhatAModeHasLearnedUntilItIsChosenAgain) {
  const auto prefetcher = Make({.mode = "layer_minus_1"});
  for (int step = 0; step < 200; ++step) Step(*prefetcher);
  const LearnedModes learned = prefetcher->SaveState();
  ASSERT_EQ(learned.count("layer_minus_1"), 1);
  ASSERT_TRUE(prefetcher->Set({.mode = "none"}).ok());
  Step(*prefetcher);
  EXPECT_EQ(prefetcher->SaveState(), learned);
  ASSERT_TRUE(prefetcher->Set({.mode = "layer_minus_1"}).ok());
  routing_.BeginStep({1});
  prefetcher->OnRouted(routing_.Layer(0));
  EXPECT_EQ(prefetcher->SaveState(), learned);

  const auto other = Make({.mode = "layer_minus_1"});
  ASSERT_TRUE(other->LoadState(learned).ok());
  other->OnRouted(routing_.Layer(0));
  EXPECT_EQ(other->SaveState(), learned);
}

TEST_F(PrefetcherTest, RefusesStatesThatAreNone) {
  const auto prefetcher = Make({.mode = "adaptive"});
  EXPECT_THAT(prefetcher->LoadState({{"layer_minus_1", "x"}}).message(),
              HasSubstr("state of layer_minus_1"));
  EXPECT_THAT(prefetcher->LoadState({{"psychic", ""}}).message(), HasSubstr("'psychic'"));
  EXPECT_THAT(prefetcher->SaveState(), IsEmpty());
}

TEST_F(PrefetcherTest, NamesTheSettingThatIsWrong) {
  const auto prefetcher = Make({.mode = "pregate"});
  const auto refusal = [&](const Prefetcher::Settings& settings) {
    const absl::Status status = prefetcher->Set(settings);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal({.mode = "psychic"}), HasSubstr("'psychic' is not one of"));
  EXPECT_EQ(refusal({.lookahead = 3}), "speculation_lookahead: 3 is not between 1 and 2");
  EXPECT_EQ(refusal({.aggressiveness = 1.5}),
            "speculation_aggressiveness: 1.5 is not between 0 and 1");
  EXPECT_EQ(refusal({.confidence = -1}), "speculation_confidence: -1 is not between 0 and 1");
  EXPECT_EQ(prefetcher->Read().settings.mode, "pregate");
}

TEST_F(PrefetcherTest, RestsWhileEverythingIsResident) {
  sink_.is_resident = true;
  const auto prefetcher = Make({.mode = "pregate"});
  for (int step = 0; step < 70; ++step) Step(*prefetcher);
  const int calls = sink_.calls;
  for (int step = 70; step < 70 + 640; ++step) Step(*prefetcher);
  // Every 64th step it looks whether this is still so.
  EXPECT_EQ(sink_.calls - calls, 10 * 4);
  sink_.pace.demanded_bytes += 1;
  Step(*prefetcher);
  Step(*prefetcher);
  EXPECT_EQ(sink_.calls - calls, 10 * 4 + 2 * 4);
}

TEST_F(PrefetcherTest, ShowsAControlEveryStep) {
  sink_.is_resident = true;
  const auto prefetcher = Make({.mode = "none"});
  auto control = std::make_unique<ToldPredictor>(std::vector<std::vector<ExpertPrediction>>{{}});
  const ToldPredictor& told = *control;
  prefetcher->UsePredictor(std::move(control));
  for (int step = 0; step < 200; ++step) Step(*prefetcher);
  EXPECT_EQ(told.observed, 200 * 4);
}

TEST_F(PrefetcherTest, AdaptiveAsksForMoreWhereHintsAreWasted) {
  const auto prefetcher = Make({.mode = "adaptive", .aggressiveness = 1});
  PredictorShape gateless = kShape;
  gateless.has_gates = false;
  gateless.is_pregated = false;
  SyntheticRouting noise(gateless, false);
  const auto play = [&](int steps, uint64_t wasted_each) {
    size_t hints = 0;
    for (int step = 0; step < steps; ++step) {
      noise.BeginStep({1, 2, 3, 4});
      for (uint32_t layer = 0; layer < kShape.num_layers; ++layer) {
        prefetcher->OnRouted(noise.Layer(layer));
        hints += sink_.last.size();
      }
      sink_.pace.hinted.wasted += wasted_each;
      sink_.pace.demanded_bytes += 1;
    }
    return hints;
  };
  EXPECT_GT(play(64, 0), 0);
  play(64 * 10, 100);
  EXPECT_EQ(play(64, 100), 0);
  // Nothing is wasted any more: tried again.
  play(64 * 20, 0);
  EXPECT_GT(play(64, 0), 0);
}

TEST_F(PrefetcherTest, IsChangedFromOtherThreadsWhileItWorks) {
  const auto prefetcher = Make({.mode = "adaptive"});
  std::thread operators([&] {
    for (int i = 0; i < 50; ++i) {
      for (const char* mode : {"pregate", "none", "multi_layer", "adaptive"}) {
        EXPECT_TRUE(prefetcher->Set({.mode = mode, .lookahead = 2}).ok());
        EXPECT_EQ(prefetcher->Read().settings.mode, mode);
        RecordedStats stats;
        prefetcher->VisitStats(stats);
      }
    }
  });
  for (int step = 0; step < 500; ++step) Step(*prefetcher);
  operators.join();
  Step(*prefetcher);
  EXPECT_EQ(prefetcher->SaveState().count("adaptive"), 1);
}

}  // namespace
}  // namespace pregate
