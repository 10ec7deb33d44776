// What the fuzz targets share: an input as a file, and its numbers.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/base/check.h"

namespace pregate {

inline absl::string_view TextOf(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// `bytes` as a regular file without a disk.
class InputFile {
 public:
  explicit InputFile(absl::string_view bytes) : descriptor_(memfd_create("input", MFD_CLOEXEC)) {
    PREGATE_CHECK(descriptor_ >= 0);
    while (!bytes.empty()) {
      const ssize_t written = write(descriptor_, bytes.data(), bytes.size());
      PREGATE_CHECK(written > 0, written);
      bytes.remove_prefix(static_cast<size_t>(written));
    }
  }
  ~InputFile() { close(descriptor_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  // Can be opened as long as this lives.
  std::string path() const { return absl::StrCat("/proc/self/fd/", descriptor_); }

 private:
  const int descriptor_;
};

// `number` as `size` bytes, little-endian.
inline std::string LittleEndian(uint64_t number, size_t size) {
  std::string bytes;
  for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(number >> (8 * i)));
  return bytes;
}

}  // namespace pregate

// The target: whatever the bytes are, it returns 0, and neither crashes, hangs nor leaks.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
