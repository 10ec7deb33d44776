#include "core/expert/speculation_state.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/storage/whole_file.h"

namespace pregate {
namespace {

constexpr absl::string_view kMagic = "PGLEARNT";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kMostBytes = uint64_t{2} << 30;
constexpr size_t kChecksumBytes = 8;

void Put(uint64_t number, size_t bytes, std::string& out) {
  for (size_t i = 0; i < bytes; ++i) out.push_back(static_cast<char>(number >> (8 * i)));
}

void PutText(absl::string_view text, std::string& out) {
  Put(text.size(), 8, out);
  absl::StrAppend(&out, text);
}

uint64_t NumberIn(absl::string_view bytes) {
  uint64_t number = 0;
  for (size_t i = bytes.size(); i-- > 0;) number = number << 8 | static_cast<uint8_t>(bytes[i]);
  return number;
}

// Takes fields off the front of bytes whose checksum is right; what a wrong length leaves is "" or
// 0, and Check says so.
class Fields {
 public:
  explicit Fields(absl::string_view bytes) : rest_(bytes) {}

  uint64_t Number(size_t size) { return NumberIn(Take(size)); }
  absl::string_view Text() { return Take(Number(8)); }
  bool is_short() const { return is_short_; }
  bool empty() const { return rest_.empty(); }

 private:
  absl::string_view Take(uint64_t size) {
    is_short_ = is_short_ || size > rest_.size();
    const absl::string_view taken = rest_.substr(0, std::min<uint64_t>(size, rest_.size()));
    rest_.remove_prefix(taken.size());
    return is_short_ ? absl::string_view() : taken;
  }

  absl::string_view rest_;
  bool is_short_ = false;
};

std::string Describe(absl::string_view model, uint64_t layers, uint64_t experts, uint64_t chosen) {
  return absl::StrCat(
      model, " (", layers, " layers × ", experts, " experts, ", chosen, " per token)");
}

}  // namespace

absl::Status WriteSpeculationState(const std::string& path,
                                   const std::string& model,
                                   const PredictorShape& shape,
                                   const LearnedModes& modes) {
  std::string bytes(kMagic);
  Put(kVersion, 4, bytes);
  PutText(model, bytes);
  Put(shape.num_layers, 4, bytes);
  Put(shape.num_experts, 4, bytes);
  Put(shape.experts_per_token, 4, bytes);
  Put(modes.size(), 4, bytes);
  for (const auto& [mode, state] : modes) {
    PutText(mode, bytes);
    PutText(state, bytes);
  }
  Put(Checksum(bytes), kChecksumBytes, bytes);
  if (bytes.size() > kMostBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("speculation state ",
                                                     path,
                                                     " would have ",
                                                     bytes.size(),
                                                     " bytes; at most ",
                                                     kMostBytes,
                                                     " are kept"));
  }
  return WriteWholeFile(path, bytes);
}

absl::StatusOr<LearnedModes> ReadSpeculationState(const std::string& path,
                                                  const std::string& model,
                                                  const PredictorShape& shape) {
  PREGATE_ASSIGN_OR_RETURN(const std::string file, ReadWholeFile(path, kMostBytes));
  const std::string name = absl::StrCat("speculation state ", path);
  if (file.size() < kMagic.size() + 4 + kChecksumBytes ||
      absl::string_view(file).substr(0, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError(absl::StrCat(name, " is not a file of learned routing"));
  }
  const absl::string_view content = absl::string_view(file).substr(0, file.size() - kChecksumBytes);
  Fields fields(content.substr(kMagic.size()));
  const uint64_t version = fields.Number(4);
  if (version != kVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is of version ", version, "; this program reads ", kVersion));
  }
  if (Checksum(content) != NumberIn(absl::string_view(file).substr(content.size()))) {
    return absl::DataLossError(absl::StrCat(name, " is damaged: its checksum is wrong"));
  }

  const std::string its_model(fields.Text());
  const uint64_t layers = fields.Number(4);
  const uint64_t experts = fields.Number(4);
  const uint64_t chosen = fields.Number(4);
  if (its_model != model || layers != shape.num_layers || experts != shape.num_experts ||
      chosen != shape.experts_per_token) {
    return absl::FailedPreconditionError(absl::StrCat(
        name,
        " is of model ",
        Describe(its_model, layers, experts, chosen),
        "; this is ",
        Describe(model, shape.num_layers, shape.num_experts, shape.experts_per_token)));
  }
  LearnedModes modes;
  for (uint64_t left = fields.Number(4); left > 0 && !fields.is_short(); --left) {
    std::string mode(fields.Text());
    modes[std::move(mode)] = std::string(fields.Text());
  }
  if (fields.is_short() || !fields.empty()) {
    return absl::DataLossError(absl::StrCat(name, " is damaged: its lengths do not add up"));
  }
  return modes;
}

}  // namespace pregate
