#include "core/storage/expert_pack_format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the pack's numbers are little-endian");

constexpr absl::string_view kMagic = "PGEXPERT";
constexpr uint32_t kVersion = 1;
// Far above any real one: a damaged length must not make a reader take all memory.
constexpr uint64_t kMaxHeaderBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxFileBytes = std::numeric_limits<int64_t>::max();

// What begins the file; the properties follow, then zeros, then the checksum of all before it.
struct Prefix {
  char magic[8];
  uint32_t version;
  uint32_t header_bytes;
  uint32_t num_layers;
  uint32_t num_experts;
  uint64_t record_bytes;
  uint64_t stride_bytes;
  uint64_t properties_bytes;
};
static_assert(sizeof(Prefix) == 48);

// What ends a record's stride.
struct Trailer {
  uint64_t checksum;
  uint32_t layer;
  uint32_t expert;
};
static_assert(sizeof(Trailer) == 16);

uint64_t RoundUp(uint64_t bytes) {
  return (bytes + kPackAlignment - 1) / kPackAlignment * kPackAlignment;
}

std::string Hex(uint64_t checksum) { return absl::StrCat(absl::Hex(checksum, absl::kZeroPad16)); }

bool IsZero(absl::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char byte) { return byte == 0; });
}

absl::StatusOr<std::string> SerializeProperties(const std::map<std::string, std::string>& values) {
  try {
    return nlohmann::json(values).dump();
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError("the properties of the pack are not UTF-8");
  }
}

absl::StatusOr<std::map<std::string, std::string>> ParseProperties(absl::string_view text) {
  const nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
  std::map<std::string, std::string> properties;
  if (!json.is_object()) return absl::InvalidArgumentError("properties are not a JSON object");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat("property \"", key, "\" is not a string"));
    }
    properties.emplace(key, value.get<std::string>());
  }
  return properties;
}

// All but the properties, which nothing depends on.
absl::Status LayOut(uint64_t properties_bytes, ExpertPackShape& shape) {
  const ExpertPackHeader& header = shape.header;
  if (header.num_layers == 0) return absl::InvalidArgumentError("num_layers is 0");
  if (header.num_experts == 0) return absl::InvalidArgumentError("num_experts is 0");
  if (header.record_bytes == 0) return absl::InvalidArgumentError("record_bytes is 0");
  shape.num_records = uint64_t{header.num_layers} * header.num_experts;
  if (shape.num_records > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        header.num_layers, " layers of ", header.num_experts, " experts are 2^32 records or more"));
  }
  constexpr uint64_t kFrame = sizeof(Prefix) + sizeof(uint64_t);
  if (properties_bytes > kMaxHeaderBytes - kFrame) {
    return absl::InvalidArgumentError(absl::StrCat("properties of ",
                                                   FormatBytes(properties_bytes),
                                                   " do not fit in a header of at most ",
                                                   FormatBytes(kMaxHeaderBytes)));
  }
  shape.header_bytes = RoundUp(kFrame + properties_bytes);
  const uint64_t limit = (kMaxFileBytes - shape.header_bytes) / shape.num_records;
  if (header.record_bytes > limit || limit - header.record_bytes < 2 * kPackAlignment) {
    return absl::InvalidArgumentError(absl::StrCat(shape.num_records,
                                                   " records of record_bytes ",
                                                   header.record_bytes,
                                                   " are more than 2^63 bytes"));
  }
  shape.stride_bytes = RoundUp(header.record_bytes + sizeof(Trailer));
  shape.file_bytes = shape.header_bytes + shape.num_records * shape.stride_bytes;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ExpertPackShape> ShapeOfExpertPack(const ExpertPackHeader& header) {
  ExpertPackShape shape{.header = header};
  PREGATE_ASSIGN_OR_RETURN(const std::string properties, SerializeProperties(header.properties));
  PREGATE_RETURN_IF_ERROR(LayOut(properties.size(), shape));
  return shape;
}

std::string SerializeExpertPackHeader(const ExpertPackShape& shape) {
  const std::string properties = *SerializeProperties(shape.header.properties);
  Prefix prefix{.magic = {},
                .version = kVersion,
                .header_bytes = static_cast<uint32_t>(shape.header_bytes),
                .num_layers = shape.header.num_layers,
                .num_experts = shape.header.num_experts,
                .record_bytes = shape.header.record_bytes,
                .stride_bytes = shape.stride_bytes,
                .properties_bytes = properties.size()};
  std::memcpy(prefix.magic, kMagic.data(), kMagic.size());
  std::string bytes(shape.header_bytes, '\0');
  std::memcpy(bytes.data(), &prefix, sizeof(prefix));
  std::memcpy(bytes.data() + sizeof(prefix), properties.data(), properties.size());
  const size_t end = bytes.size() - sizeof(uint64_t);
  const uint64_t checksum = XXH3_64bits(bytes.data(), end);
  std::memcpy(bytes.data() + end, &checksum, sizeof(checksum));
  return bytes;
}

absl::StatusOr<uint64_t> ExpertPackHeaderBytes(absl::string_view prefix) {
  if (prefix.substr(0, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError(
        absl::StrCat("header: it does not begin with \"", kMagic, "\": not a pack of experts"));
  }
  if (prefix.size() < kPackAlignment) {
    return absl::InvalidArgumentError(absl::StrCat(
        "header: ", prefix.size(), " bytes, where the shortest pack has ", kPackAlignment));
  }
  Prefix fields;
  std::memcpy(&fields, prefix.data(), sizeof(fields));
  if (fields.version != kVersion) {
    return absl::InvalidArgumentError(absl::StrCat("header: version ",
                                                   fields.version,
                                                   " where this program reads ",
                                                   kVersion,
                                                   ": pack the model again"));
  }
  if (fields.header_bytes == 0 || fields.header_bytes % kPackAlignment != 0 ||
      fields.header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("header: its length ",
                                                   fields.header_bytes,
                                                   " at 0xc is not a multiple of ",
                                                   kPackAlignment,
                                                   " up to ",
                                                   kMaxHeaderBytes));
  }
  return fields.header_bytes;
}

absl::StatusOr<ExpertPackShape> ParseExpertPackHeader(absl::string_view bytes) {
  Prefix fields;
  std::memcpy(&fields, bytes.data(), sizeof(fields));
  const size_t end = bytes.size() - sizeof(uint64_t);
  uint64_t stored = 0;
  std::memcpy(&stored, bytes.data() + end, sizeof(stored));
  const uint64_t computed = XXH3_64bits(bytes.data(), end);
  if (stored != computed) {
    return absl::InvalidArgumentError(
        absl::StrCat("header: its checksum is ", Hex(computed), ", at its end is ", Hex(stored)));
  }
  // From here on it is what a writer wrote, if perhaps not ours.
  ExpertPackShape shape{.header = {.num_layers = fields.num_layers,
                                   .num_experts = fields.num_experts,
                                   .record_bytes = fields.record_bytes,
                                   .properties = {}}};
  absl::Status laid_out = LayOut(fields.properties_bytes, shape);
  if (!laid_out.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("header: ", laid_out.message()));
  }
  if (shape.header_bytes != bytes.size() || shape.stride_bytes != fields.stride_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("header: header_bytes and stride_bytes are ",
                                                   bytes.size(),
                                                   " and ",
                                                   fields.stride_bytes,
                                                   ", should be ",
                                                   shape.header_bytes,
                                                   " and ",
                                                   shape.stride_bytes));
  }
  auto properties = ParseProperties(bytes.substr(sizeof(Prefix), fields.properties_bytes));
  if (!properties.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("header: ", properties.status().message()));
  }
  shape.header.properties = *std::move(properties);
  return shape;
}

uint64_t ExpertRecordChecksum(absl::Span<const std::byte> content,
                              uint32_t layer,
                              uint32_t expert) {
  return XXH3_64bits_withSeed(content.data(), content.size(), uint64_t{layer} << 32 | expert);
}

void SealExpertRecord(uint64_t record_bytes,
                      uint32_t layer,
                      uint32_t expert,
                      absl::Span<std::byte> stride) {
  const Trailer trailer = {
      .checksum = ExpertRecordChecksum(stride.first(record_bytes), layer, expert),
      .layer = layer,
      .expert = expert};
  const size_t end = stride.size() - sizeof(trailer);
  std::memset(stride.data() + record_bytes, 0, end - record_bytes);
  std::memcpy(stride.data() + end, &trailer, sizeof(trailer));
}

absl::Status CheckExpertRecord(uint64_t record_bytes,
                               uint32_t layer,
                               uint32_t expert,
                               absl::Span<const std::byte> stride) {
  const size_t end = stride.size() - sizeof(Trailer);
  Trailer trailer;
  std::memcpy(&trailer, stride.data() + end, sizeof(trailer));
  const uint64_t checksum = ExpertRecordChecksum(stride.first(record_bytes), layer, expert);
  if (checksum != trailer.checksum) {
    return absl::DataLossError(absl::StrCat(
        "its checksum is ", Hex(checksum), ", in its trailer is ", Hex(trailer.checksum)));
  }
  if (layer != trailer.layer || expert != trailer.expert) {
    return absl::DataLossError(
        absl::StrCat("its trailer says that it is expert ", trailer.layer, "/", trailer.expert));
  }
  const absl::string_view padding(reinterpret_cast<const char*>(stride.data()) + record_bytes,
                                  end - record_bytes);
  if (!IsZero(padding)) {
    return absl::DataLossError("the padding between content and trailer is not zero");
  }
  return absl::OkStatus();
}

}  // namespace pregate
