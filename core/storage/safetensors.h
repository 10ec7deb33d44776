// Tensors of a model folder, in Hugging Face's safetensors format
// (https://huggingface.co/docs/safetensors): u64 length, JSON header, bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/storage/mapped_file.h"

namespace pregate {

enum class TensorDtype {
  kBool,
  kU8,
  kI8,
  kU16,
  kI16,
  kF16,
  kBf16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
};

// As the format spells it: "F32", "BF16".
absl::string_view TensorDtypeName(TensorDtype dtype);

// Bytes of one element.
size_t TensorDtypeSize(TensorDtype dtype);

// One tensor in a mapped file: valid as long as the Safetensors it came from.
struct TensorView {
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<int64_t> shape;         // none negative; empty = a scalar
  absl::Span<const std::byte> bytes;  // row-major, little-endian, product(shape) elements; the
                                      // format promises no alignment
  absl::string_view file;             // path of the file it lies in, for messages
};

// The tensors of one file, or of a folder's shards. What can be read here has been validated: a
// header that is JSON of the right form, known dtypes, sizes that agree with the shapes, ranges
// that cover each file exactly, without overlap or hole, and no name twice. Tensor *values* are not
// looked at. Immutable: thread-safe. Move-only.
class Safetensors {
 public:
  // Maps `path`. INVALID_ARGUMENT names the file, the tensor and the offset at fault; errors of the
  // system are MappedFile's.
  static absl::StatusOr<Safetensors> Open(const std::string& path);

  // Maps `folder`/model.safetensors, or where that is missing the shards that
  // `folder`/model.safetensors.index.json lists. Tensors that the index does not list are left out;
  // one that its shard lacks is INVALID_ARGUMENT. NOT_FOUND when the folder has neither file.
  static absl::StatusOr<Safetensors> OpenFolder(const std::string& folder);

  // By name, in alphabetical order.
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }

  // Null when there is none of that name.
  const TensorView* Find(absl::string_view name) const;

  // The file's "__metadata__"; of shards, the first one's.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  Safetensors() = default;

  // Behind pointers, so that TensorView::file stays valid when this is moved.
  std::vector<std::unique_ptr<const MappedFile>> files_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

// What a SafetensorsWriter needs to know of a tensor before its bytes come.
struct TensorSpec {
  std::string name;
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<int64_t> shape;
};

// Writes a file tensor by tensor, in any chunks, into a temporary file beside it that Finish
// renames into place: a reader sees the whole file or none. Without Finish nothing is left behind.
// Used by one thread.
class SafetensorsWriter {
 public:
  // Writes the header. INVALID_ARGUMENT: a name twice or reserved, a negative or overflowing shape.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path,
      const std::vector<TensorSpec>& tensors,
      const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The next bytes of the tensors in the order in which they were given to Create, little-endian.
  absl::Status Append(absl::Span<const std::byte> bytes);

  // FAILED_PRECONDITION when bytes are missing.
  absl::Status Finish();

 private:
  SafetensorsWriter(std::string path, std::string temporary_path, int descriptor, uint64_t size);

  const std::string path_;
  const std::string temporary_path_;
  int descriptor_;      // -1 once closed
  uint64_t remaining_;  // bytes of tensors to come
};

}  // namespace pregate
