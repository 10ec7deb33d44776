// The bytes of `experts.pack` (docs/expert-pack.md), apart from any file: what the reader and the
// writer share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/storage/expert_pack.h"

namespace pregate {

// What the header's and each record's place and length in the file are multiples of, and what
// O_DIRECT asks of addresses, offsets and lengths.
constexpr uint64_t kPackAlignment = 4096;

// Where the records of a pack lie.
struct ExpertPackShape {
  ExpertPackHeader header;
  uint64_t header_bytes = 0;  // in the file, where the records begin
  uint64_t stride_bytes = 0;  // from one record to the next
  uint64_t num_records = 0;
  uint64_t file_bytes = 0;  // of the whole pack
};

// INVALID_ARGUMENT names the field that no pack can have: no layers, experts or bytes, more than
// 2^32 - 1 records, a file of more than 2^63 bytes, properties that are not UTF-8 or too many.
absl::StatusOr<ExpertPackShape> ShapeOfExpertPack(const ExpertPackHeader& header);

// [shape.header_bytes]: the header as it begins the file.
std::string SerializeExpertPackHeader(const ExpertPackShape& shape);

// How long is the header that `prefix`, the first kPackAlignment bytes of a file or what there is
// of them, begins? INVALID_ARGUMENT says why it is none.
absl::StatusOr<uint64_t> ExpertPackHeaderBytes(absl::string_view prefix);
// Of a header's bytes, all of them. INVALID_ARGUMENT names what does not fit.
absl::StatusOr<ExpertPackShape> ParseExpertPackHeader(absl::string_view bytes);

// Fills the end of `stride`, whose beginning holds the content of `record_bytes`.
void SealExpertRecord(uint64_t record_bytes,
                      uint32_t layer,
                      uint32_t expert,
                      absl::Span<std::byte> stride);

// Is it what SealExpertRecord left? DATA_LOSS says what is wrong, not where: "its checksum is …".
absl::Status CheckExpertRecord(uint64_t record_bytes,
                               uint32_t layer,
                               uint32_t expert,
                               absl::Span<const std::byte> stride);

}  // namespace pregate
