// The predictors that are there, for the table in expert_predictor.cc.
#pragma once

#include <memory>

#include "core/expert/expert_predictor.h"

namespace pregate {

// How far ahead any of them looks.
constexpr uint32_t kMaxPredictionDistance = 2;

// A table of which expert follows which.
std::unique_ptr<ExpertPredictor> MakeLayerMinus1Predictor(const PredictorShape& shape);
// A regression on the last three layers and on the sequence's token before.
std::unique_ptr<ExpertPredictor> MakeMultiLayerPredictor(const PredictorShape& shape);
// The gates of the layers to come, asked early.
std::unique_ptr<ExpertPredictor> MakeGateLookaheadPredictor(const PredictorShape& shape);
// What a pre-gate has decided.
std::unique_ptr<ExpertPredictor> MakePregatePredictor(const PredictorShape& shape);
// Whichever of them has been right lately.
std::unique_ptr<ExpertPredictor> MakeAdaptivePredictor(const PredictorShape& shape);

}  // namespace pregate
