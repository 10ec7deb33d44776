#include "core/expert/predictor_state.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

static_assert(std::endian::native == std::endian::little);

// Changes with the meaning of any mode's tables.
constexpr uint32_t kVersion = 1;

std::string HeaderOf(absl::string_view mode, const PredictorShape& shape) {
  const uint32_t numbers[] = {
      kVersion, shape.num_layers, shape.num_experts, shape.experts_per_token};
  std::string header(mode);
  header.push_back('\0');
  header.append(reinterpret_cast<const char*>(numbers), sizeof(numbers));
  return header;
}

}  // namespace

StateWriter::StateWriter(absl::string_view mode, const PredictorShape& shape)
    : bytes_(HeaderOf(mode, shape)) {}

void StateWriter::Table(absl::Span<const float> values) {
  bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

void StateWriter::Nested(absl::string_view state) {
  const uint64_t size = state.size();
  bytes_.append(reinterpret_cast<const char*>(&size), sizeof(size));
  absl::StrAppend(&bytes_, state);
}

absl::Status StateReader::Take(uint64_t bytes, absl::string_view& taken) {
  if (bytes > rest_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "state of ", mode_, ": ", rest_.size(), " bytes are left where ", bytes, " belong"));
  }
  taken = rest_.substr(0, bytes);
  rest_.remove_prefix(bytes);
  return absl::OkStatus();
}

absl::Status StateReader::Begin(const PredictorShape& shape) {
  const std::string header = HeaderOf(mode_, shape);
  absl::string_view found;
  PREGATE_RETURN_IF_ERROR(Take(header.size(), found));
  if (found == header) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("not a state of ",
                                                 mode_,
                                                 " for ",
                                                 shape.num_layers,
                                                 " layers × ",
                                                 shape.num_experts,
                                                 " experts, ",
                                                 shape.experts_per_token,
                                                 " per token"));
}

absl::Status StateReader::Table(float least, float most, std::vector<float>& values) {
  absl::string_view bytes;
  PREGATE_RETURN_IF_ERROR(Take(values.size() * sizeof(float), bytes));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] >= least && values[i] <= most) continue;  // and is a number
    return absl::InvalidArgumentError(absl::StrCat("state of ",
                                                   mode_,
                                                   ": value ",
                                                   i,
                                                   " of a table is ",
                                                   values[i],
                                                   "; it lies between ",
                                                   least,
                                                   " and ",
                                                   most));
  }
  return absl::OkStatus();
}

absl::Status StateReader::Nested(absl::string_view& state) {
  absl::string_view bytes;
  uint64_t size = 0;
  PREGATE_RETURN_IF_ERROR(Take(sizeof(size), bytes));
  std::memcpy(&size, bytes.data(), sizeof(size));
  return Take(size, state);
}

absl::Status StateReader::End() const {
  if (rest_.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("state of ", mode_, ": ", rest_.size(), " bytes too many"));
}

}  // namespace pregate
