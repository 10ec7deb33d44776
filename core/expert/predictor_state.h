// What a predictor has learned, as bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/expert/expert_predictor.h"

namespace pregate {

// Begins with the mode's name and the shape, then tables of float32, little-endian.
class StateWriter {
 public:
  StateWriter(absl::string_view mode, const PredictorShape& shape);
  void Table(absl::Span<const float> values);
  // A state within this one.
  void Nested(absl::string_view state);
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads what StateWriter wrote, in the same order. INVALID_ARGUMENT says what is wrong.
class StateReader {
 public:
  // `state` outlives this.
  StateReader(absl::string_view mode, absl::string_view state) : mode_(mode), rest_(state) {}

  absl::Status Begin(const PredictorShape& shape);
  // As many values as `values` has, each within [least, most].
  absl::Status Table(float least, float most, std::vector<float>& values);
  // What Nested was given; valid as long as the state.
  absl::Status Nested(absl::string_view& state);
  // Nothing may follow.
  absl::Status End() const;

 private:
  absl::Status Take(uint64_t bytes, absl::string_view& taken);

  const absl::string_view mode_;
  absl::string_view rest_;
};

}  // namespace pregate
