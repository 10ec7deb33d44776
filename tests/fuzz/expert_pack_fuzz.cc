// An experts.pack that somebody else wrote: the input as the file, and as a header and records
// whose lengths and checksums are made right, which no mutation would hit upon.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/storage/expert_pack.h"
#include "core/storage/expert_pack_format.h"
#include "core/storage/whole_file.h"
#include "tests/fuzz/fuzz_input.h"

namespace pregate {
namespace {

constexpr uint64_t kLongestFile = 256 << 10;

// Reads every record, one by one and all together, and checks it again once it is sealed.
void ReadRecords(const ExpertPack& pack) {
  const ExpertPackHeader& header = pack.header();
  const uint64_t stride = pack.stride_bytes();
  const uint64_t bytes = stride * pack.num_records();
  const std::unique_ptr<std::byte, decltype(&std::free)> memory(
      static_cast<std::byte*>(std::aligned_alloc(kPackAlignment, bytes)), &std::free);
  const auto strides = absl::MakeSpan(memory.get(), bytes);
  const auto count = static_cast<uint32_t>(pack.num_records());
  std::vector<absl::Status> statuses(count);
  pack.ReadRun(0, 0, count, strides, absl::MakeSpan(statuses));
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t layer = i / header.num_experts;
    const uint32_t expert = i % header.num_experts;
    const auto record = strides.subspan(i * stride, stride);
    PREGATE_CHECK(pack.Read(layer, expert, record) == statuses[i], statuses[i].message());
    SealExpertRecord(header.record_bytes, layer, expert, record);
    const absl::Status sealed = pack.Check(layer, expert, record);
    PREGATE_CHECK(sealed.ok(), sealed.message());
  }
}

// What the input may mean: its header padded to the length it gives, with its checksum, and as many
// bytes as it says that follow.
std::string Repaired(absl::string_view input) {
  std::string header(input.substr(0, kPackAlignment));
  header.resize(kPackAlignment);
  const absl::StatusOr<uint64_t> header_bytes = ExpertPackHeaderBytes(header);
  if (!header_bytes.ok() || *header_bytes > kLongestFile) return "";
  header = std::string(input.substr(0, *header_bytes));
  header.resize(*header_bytes);
  const size_t end = header.size() - sizeof(uint64_t);
  header.replace(
      end, sizeof(uint64_t), LittleEndian(Checksum(header.substr(0, end)), sizeof(uint64_t)));
  const absl::StatusOr<ExpertPackShape> shape = ParseExpertPackHeader(header);
  if (!shape.ok() || shape->file_bytes > kLongestFile) return header;
  std::string file = header + std::string(input.substr(std::min(input.size(), header.size())));
  file.resize(shape->file_bytes);
  PREGATE_CHECK(ShapeOfExpertPack(shape->header).ok());
  return file;
}

void OpenAndRead(absl::string_view bytes) {
  const InputFile file(bytes);
  const absl::StatusOr<ExpertPack> pack = ExpertPack::Open(file.path());
  if (pack.ok()) ReadRecords(*pack);
}

}  // namespace
}  // namespace pregate

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input = pregate::TextOf(data, size);
  pregate::OpenAndRead(input);
  pregate::OpenAndRead(pregate::Repaired(input));
  return 0;
}
