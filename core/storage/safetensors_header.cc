#include "core/storage/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace pregate {
namespace {

constexpr size_t kLengthSize = 8;             // bytes of the length field
constexpr uint64_t kMaxLength = 100'000'000;  // of the JSON, as in the reference implementation
constexpr size_t kDataAlignment = 64;         // of the tensors' bytes in the files that we write
constexpr absl::string_view kMetadataKey = "__metadata__";

struct DtypeRow {
  TensorDtype dtype;
  absl::string_view name;
  size_t size;
};
constexpr std::array<DtypeRow, 13> kDtypes = {{{TensorDtype::kBool, "BOOL", 1},
                                               {TensorDtype::kU8, "U8", 1},
                                               {TensorDtype::kI8, "I8", 1},
                                               {TensorDtype::kU16, "U16", 2},
                                               {TensorDtype::kI16, "I16", 2},
                                               {TensorDtype::kF16, "F16", 2},
                                               {TensorDtype::kBf16, "BF16", 2},
                                               {TensorDtype::kU32, "U32", 4},
                                               {TensorDtype::kI32, "I32", 4},
                                               {TensorDtype::kF32, "F32", 4},
                                               {TensorDtype::kU64, "U64", 8},
                                               {TensorDtype::kI64, "I64", 8},
                                               {TensorDtype::kF64, "F64", 8}}};

const DtypeRow& Row(TensorDtype dtype) { return kDtypes[static_cast<size_t>(dtype)]; }

// A tensor's name for a message: short, and without what would confuse a terminal.
std::string Quoted(absl::string_view name) {
  constexpr size_t kShown = 100;
  return absl::StrCat(
      "'", absl::Utf8SafeCHexEscape(name.substr(0, kShown)), name.size() > kShown ? "…'" : "'");
}

// Bytes of a tensor; INVALID_ARGUMENT when they cannot be counted.
absl::StatusOr<uint64_t> ByteSize(const TensorSpec& spec) {
  uint64_t size = Row(spec.dtype).size;
  for (const int64_t extent : spec.shape) {
    if (extent < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", Quoted(spec.name), ": negative extent ", extent, " in its shape"));
    }
    if (__builtin_mul_overflow(size, static_cast<uint64_t>(extent), &size)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ",
                                                     Quoted(spec.name),
                                                     ": shape [",
                                                     absl::StrJoin(spec.shape, ", "),
                                                     "] is more than 2^64 bytes"));
    }
  }
  return size;
}

// Receives the JSON piece by piece, so that an absurd header costs no memory: what does not belong
// ends the parse at once. The form is
//   {"__metadata__": {"key": "text", …}, "name": {"dtype": …, "shape": […], "data_offsets": [b,
//   e]}, …}
class HeaderSax final : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool start_object(size_t) override {
    switch (place_) {
      case Place::kOutside:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        place_ = key_ == kMetadataKey ? Place::kMetadata : Place::kTensor;
        fields_.clear();
        return true;
      default:
        return Misplaced("an object");
    }
  }

  bool key(string_t& key) override {
    if (place_ == Place::kTop) {
      if (!names_.insert(key).second) return Fail(absl::StrCat(Quoted(key), " appears twice"));
      key_ = key;
      if (key != kMetadataKey) tensors_.emplace_back().spec.name = key;
      return true;
    }
    if (place_ == Place::kTensor && key != "dtype" && key != "shape" && key != "data_offsets") {
      return Fail(absl::StrCat("tensor ", Quoted(key_), ": unknown key ", Quoted(key)));
    }
    if (!fields_.insert(key).second) {
      return Fail(absl::StrCat(Quoted(key_), ": key ", Quoted(key), " appears twice"));
    }
    field_ = key;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (fields_.count(field) == 0) {
          return Fail(absl::StrCat("tensor ", Quoted(key_), ": no ", field));
        }
      }
    }
    place_ = place_ == Place::kTop ? Place::kOutside : Place::kTop;
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      metadata_.emplace(field_, value);
      return true;
    }
    if (place_ != Place::kTensor || field_ != "dtype") return Misplaced("a string");
    for (const DtypeRow& row : kDtypes) {
      if (row.name == value) {
        tensors_.back().spec.dtype = row.dtype;
        return true;
      }
    }
    return Fail(
        absl::StrCat("tensor ",
                     Quoted(key_),
                     ": dtype ",
                     Quoted(value),
                     " is not one of ",
                     absl::StrJoin(kDtypes, ", ", [](std::string* out, const DtypeRow& row) {
                       absl::StrAppend(out, row.name);
                     })));
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor || field_ == "dtype") return Misplaced("a list");
    place_ = Place::kNumbers;
    numbers_.clear();
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kNumbers) return Misplaced(absl::StrCat(value));
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Misplaced(absl::StrCat(value));
    }
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    SafetensorsHeader::Tensor& tensor = tensors_.back();
    if (field_ == "shape") {
      tensor.spec.shape = numbers_;
      return true;
    }
    if (numbers_.size() != 2) {
      return Fail(absl::StrCat(
          "tensor ", Quoted(key_), ": data_offsets has ", numbers_.size(), " numbers, not 2"));
    }
    tensor.begin = static_cast<uint64_t>(numbers_[0]);
    tensor.end = static_cast<uint64_t>(numbers_[1]);
    return true;
  }

  bool number_integer(number_integer_t value) override { return Misplaced(absl::StrCat(value)); }
  bool number_float(number_float_t, const string_t& text) override { return Misplaced(text); }
  bool boolean(bool) override { return Misplaced("a boolean"); }
  bool null() override { return Misplaced("null"); }
  bool binary(binary_t&) override { return Misplaced("binary"); }

  bool parse_error(size_t position,
                   const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("the header is not JSON at offset ", kLengthSize + position - 1));
  }

  const absl::Status& status() const { return status_; }
  SafetensorsHeader Take() {
    SafetensorsHeader header;
    header.tensors = std::move(tensors_);
    header.metadata = std::move(metadata_);
    return header;
  }

 private:
  enum class Place { kOutside, kTop, kMetadata, kTensor, kNumbers };

  bool Fail(absl::string_view message) {
    status_ = absl::InvalidArgumentError(message);
    return false;
  }
  bool Misplaced(absl::string_view what) {
    switch (place_) {
      case Place::kOutside:
        return Fail(absl::StrCat("the header is ", what, ", not an object"));
      case Place::kTop:
        return Fail(absl::StrCat(Quoted(key_), " is ", what, ", not an object"));
      default:
        return Fail(absl::StrCat(Quoted(key_), ": ", Quoted(field_), " cannot be ", what));
    }
  }

  absl::Status status_;
  std::vector<SafetensorsHeader::Tensor> tensors_;
  std::map<std::string, std::string> metadata_;

  Place place_ = Place::kOutside;
  std::set<std::string> names_;   // keys seen at the top
  std::set<std::string> fields_;  // keys seen in the current object below it
  std::string key_;               // the last of names_
  std::string field_;             // the last of fields_
  std::vector<int64_t> numbers_;
};

absl::StatusOr<std::string> ToJson(const nlohmann::json& json) {
  try {
    return json.dump();
  } catch (const nlohmann::json::type_error&) {
    return absl::InvalidArgumentError("names and metadata must be UTF-8");
  }
}

// Checks that the tensors, ordered by their bytes, cover exactly `data_size` of them.
absl::Status CheckRanges(const std::vector<SafetensorsHeader::Tensor>& tensors,
                         uint64_t data_size) {
  uint64_t covered = 0;
  const SafetensorsHeader::Tensor* previous = nullptr;
  for (const SafetensorsHeader::Tensor& tensor : tensors) {
    const std::string what = absl::StrCat(
        "tensor ", Quoted(tensor.spec.name), " at data offsets [", tensor.begin, ", ", tensor.end);
    if (tensor.end < tensor.begin) {
      return absl::InvalidArgumentError(absl::StrCat(what, ") ends before it begins"));
    }
    if (tensor.end > data_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          what, ") ends past the data, which has ", data_size, " bytes: the file is truncated"));
    }
    PREGATE_ASSIGN_OR_RETURN(const uint64_t size, ByteSize(tensor.spec));
    if (tensor.end - tensor.begin != size) {
      return absl::InvalidArgumentError(absl::StrCat(what,
                                                     ") has ",
                                                     tensor.end - tensor.begin,
                                                     " bytes, but ",
                                                     TensorDtypeName(tensor.spec.dtype),
                                                     " [",
                                                     absl::StrJoin(tensor.spec.shape, ", "),
                                                     "] takes ",
                                                     size));
    }
    if (tensor.begin < covered) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ") overlaps tensor ", Quoted(previous->spec.name)));
    }
    if (tensor.begin > covered) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ") leaves a hole of ", tensor.begin - covered, " bytes before it"));
    }
    covered = tensor.end;
    previous = &tensor;
  }
  if (covered != data_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        data_size - covered, " bytes from data offset ", covered, " on are no tensor's"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view TensorDtypeName(TensorDtype dtype) { return Row(dtype).name; }

size_t TensorDtypeSize(TensorDtype dtype) { return Row(dtype).size; }

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::Span<const std::byte> file) {
  if (file.size() < kLengthSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("the file has ", file.size(), " bytes, too few for a safetensors header"));
  }
  uint64_t length = 0;
  for (size_t i = kLengthSize; i-- > 0;) length = length << 8 | std::to_integer<uint64_t>(file[i]);
  if (length > kMaxLength) {
    return absl::InvalidArgumentError(absl::StrCat("the header's length at offset 0 is ",
                                                   length,
                                                   " bytes, more than the ",
                                                   kMaxLength,
                                                   " allowed: not a safetensors file?"));
  }
  if (length > file.size() - kLengthSize) {
    return absl::InvalidArgumentError(absl::StrCat("the header of ",
                                                   length,
                                                   " bytes at offset ",
                                                   kLengthSize,
                                                   " ends past the file's ",
                                                   file.size(),
                                                   " bytes: the file is truncated"));
  }
  const char* json = reinterpret_cast<const char*>(file.data()) + kLengthSize;
  if (length == 0 || json[0] != '{') {
    return absl::InvalidArgumentError(
        absl::StrCat("the header does not begin with '{' at offset ", kLengthSize));
  }
  HeaderSax sax;
  if (!nlohmann::json::sax_parse(json, json + length, &sax)) return sax.status();

  SafetensorsHeader header = sax.Take();
  header.size = kLengthSize + length;
  std::sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.spec.name) < std::tie(b.begin, b.end, b.spec.name);
  });
  PREGATE_RETURN_IF_ERROR(CheckRanges(header.tensors, file.size() - header.size));
  return header;
}

absl::StatusOr<std::string> SerializeSafetensorsHeader(
    const std::vector<TensorSpec>& tensors,
    const std::map<std::string, std::string>& metadata,
    uint64_t& data_size) {
  std::vector<std::string> members;
  if (!metadata.empty()) {
    PREGATE_ASSIGN_OR_RETURN(const std::string value, ToJson(metadata));
    members.push_back(absl::StrCat("\"", kMetadataKey, "\":", value));
  }
  std::set<absl::string_view> names = {kMetadataKey};
  data_size = 0;
  for (const TensorSpec& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(tensor.name), ": the name is taken"));
    }
    PREGATE_ASSIGN_OR_RETURN(const std::string name, ToJson(tensor.name));
    PREGATE_ASSIGN_OR_RETURN(const uint64_t size, ByteSize(tensor));
    const uint64_t begin = data_size;
    if (__builtin_add_overflow(data_size, size, &data_size)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(tensor.name), " ends past 2^64 bytes"));
    }
    members.push_back(absl::StrFormat(R"(%s:{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]})",
                                      name,
                                      TensorDtypeName(tensor.dtype),
                                      absl::StrJoin(tensor.shape, ","),
                                      begin,
                                      data_size));
  }
  std::string text = absl::StrCat("{", absl::StrJoin(members, ","), "}");
  while ((kLengthSize + text.size()) % kDataAlignment != 0) text.push_back(' ');
  if (text.size() > kMaxLength) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the header of ", text.size(), " bytes is longer than the ", kMaxLength, " allowed"));
  }
  std::string length;
  for (size_t i = 0; i < kLengthSize; ++i) {
    length.push_back(static_cast<char>(text.size() >> (8 * i)));
  }
  return length + text;
}

}  // namespace pregate
