// Hints the cache what the layers to come will need.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/clock.h"
#include "core/base/stats.h"
#include "core/expert/expert_cache.h"
#include "core/expert/expert_predictor.h"
#include "core/expert/speculation_state.h"

namespace pregate {

// What a prefetcher sees of the cache: the methods of ExpertCache of the same names.
class HintSink {
 public:
  virtual ~HintSink() = default;
  virtual uint32_t Hint(absl::Span<const ExpertHint> hints, uint32_t max_loads) = 0;
  virtual ExpertCache::Pace ReadPace() const = 0;
};

// The cache outlives this.
class CacheHints final : public HintSink {
 public:
  explicit CacheHints(ExpertCache& cache) : cache_(cache) {}
  uint32_t Hint(absl::Span<const ExpertHint> hints, uint32_t max_loads) override {
    return cache_.Hint(hints, max_loads);
  }
  ExpertCache::Pace ReadPace() const override { return cache_.ReadPace(); }

 private:
  ExpertCache& cache_;
};

// After each layer's routing: scores what was predicted of it, and hints what is predicted of the
// next ones. Acts on predictions of at least `confidence`, until the share `aggressiveness` of the
// predicted probability is covered; nearer layers first, in each the most probable first. Begins a
// layer as many loads as let at most layer time / load time of them be in vain, by the share of
// predictions that came to nothing lately; layer time is what it computes and does not stall. What
// is left over, up to one load in vain, carries over to the next layer.
//
// Two rules beyond the predictor's own. When nothing has been loaded for 64 steps, neither needed
// nor hinted, everything is resident: it rests, and works in every 64th step only, until something
// is needed again. In the mode "adaptive", predictions have to be the more probable the more of the
// hinted bytes were wasted lately (docs/speculation.md).
class Prefetcher {
 public:
  struct Settings {
    std::string mode = "none";    // one of PredictorNames()
    uint32_t lookahead = 1;       // layers, 1 or 2
    double aggressiveness = 0.7;  // 0…1
    double confidence = 0;        // 0…1
  };

  // INVALID_ARGUMENT names the setting, its value and what is allowed; FAILED_PRECONDITION: the
  // model lacks what the mode needs. The references outlive this.
  static absl::StatusOr<std::unique_ptr<Prefetcher>> Create(const PredictorShape& shape,
                                                            const Settings& settings,
                                                            HintSink& sink,
                                                            const Clock& clock);
  ~Prefetcher();

  // --- for one thread (the engine's) ---

  // Layers in ascending order, each step from the first; behind the Acquire of that layer.
  void OnRouted(const RoutedLayer& routed);

  // What the modes used so far have learned. For the engine's thread, or when it is done.
  LearnedModes SaveState() const;
  // Before the first OnRouted. The status of LoadState of the mode that refuses its state.
  absl::Status LoadState(LearnedModes modes);

  // --- for any thread ---

  // In force from the next step on. The errors of Create; nothing has changed then. A mode that is
  // left keeps what it has learned until it is chosen again.
  absl::Status Set(const Settings& settings);
  // A predictor that is no mode of its own, until the next Set: never rests, and its predictions
  // are in Read but in no metric.
  void UsePredictor(std::unique_ptr<ExpertPredictor> predictor);

  struct Snapshot {
    Settings settings;
    uint64_t predicted = 0;  // (step, layer, expert) predictions acted on
    uint64_t correct = 0;    // of them, needed
  };
  Snapshot Read() const;
  // Was anything predicted of the layer, and acted on, the last time it could be?
  bool IsEnabled(uint32_t layer) const;

  // speculation_predicted_total{mode}, speculation_correct_total{mode}.
  void VisitStats(StatsVisitor& visitor) const;

 private:
  class Parts;
  explicit Prefetcher(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace pregate
