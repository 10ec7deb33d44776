// A model's safetensors: the input as the file, as the header of one (behind two bytes that say how
// many bytes of tensors follow it), and as the index of a folder's shards.
#include <vector>

#include "core/storage/safetensors.h"
#include "core/storage/safetensors_header.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

absl::Span<const std::byte> BytesOf(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// A header that was accepted says the same once it is written and read again.
void WriteAndReadAgain(const SafetensorsHeader& header) {
  std::vector<TensorSpec> specs;
  for (const SafetensorsHeader::Tensor& tensor : header.tensors) {
    double bytes = static_cast<double>(TensorDtypeSize(tensor.spec.dtype));  // cannot wrap around
    for (const int64_t extent : tensor.spec.shape) bytes *= static_cast<double>(extent);
    PREGATE_CHECK(bytes == static_cast<double>(tensor.end - tensor.begin), tensor.spec.name);
    specs.push_back(tensor.spec);
  }
  uint64_t data_size = 0;
  const absl::StatusOr<std::string> written =
      SerializeSafetensorsHeader(specs, header.metadata, data_size);
  PREGATE_CHECK(written.ok(), written.status().message());
  PREGATE_CHECK(data_size == (header.tensors.empty() ? 0 : header.tensors.back().end), data_size);
  const std::string file = *written + std::string(data_size, '\0');
  const absl::StatusOr<SafetensorsHeader> again = ParseSafetensorsHeader(BytesOf(file));
  PREGATE_CHECK(again.ok(), again.status().message());
  PREGATE_CHECK(again->metadata == header.metadata);
  PREGATE_CHECK(again->tensors.size() == header.tensors.size(), again->tensors.size());
}

void Read(const std::string& bytes) {
  const absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(BytesOf(bytes));
  if (header.ok()) WriteAndReadAgain(*header);
  const InputFile file(bytes);
  const absl::StatusOr<Safetensors> tensors = Safetensors::Open(file.path());
  PREGATE_CHECK(tensors.ok() == header.ok(), tensors.status().message());
}

void ReadAsIndex(absl::string_view text) {
  static const TempFolder folder;  // the shard that seeds speak of is in it
  static const std::string shard = [] {
    uint64_t data_size = 0;
    const std::vector<TensorSpec> specs = {{"a", TensorDtype::kF32, {2}},
                                           {"b", TensorDtype::kU8, {}}};
    const std::string header = SerializeSafetensorsHeader(specs, {}, data_size).value();
    return folder.Write("one.safetensors", header + std::string(data_size, 'x'));
  }();
  folder.Write("model.safetensors.index.json", std::string(text));
  const absl::StatusOr<Safetensors> tensors = Safetensors::OpenFolder(folder.path());
  if (tensors.ok()) PREGATE_CHECK(tensors->tensors().size() <= 2);
}

}  // namespace
}  // namespace pregate

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input = pregate::TextOf(data, size);
  pregate::Read(std::string(input));
  if (size >= 2) {
    const absl::string_view header = input.substr(2);
    pregate::Read(absl::StrCat(
        pregate::LittleEndian(header.size(), 8), header, std::string(data[0] | data[1] << 8, 'x')));
  }
  if (size > 0 && data[0] == '{') pregate::ReadAsIndex(input);
  return 0;
}
