#include "bench/corpus.h"

#include <zstd.h>

#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/storage/mapped_file.h"

namespace pregate {
namespace {

absl::StatusOr<std::string> Decompress(absl::Span<const std::byte> bytes) {
  const std::unique_ptr<ZSTD_DStream, decltype(&ZSTD_freeDStream)> stream(ZSTD_createDStream(),
                                                                          &ZSTD_freeDStream);
  std::string text;
  std::string chunk(ZSTD_DStreamOutSize(), '\0');
  ZSTD_inBuffer in = {.src = bytes.data(), .size = bytes.size(), .pos = 0};
  size_t wanted = 1;  // bytes of input; 0 where a frame has ended
  for (bool full = false; in.pos < in.size || full;) {
    ZSTD_outBuffer out = {.dst = chunk.data(), .size = chunk.size(), .pos = 0};
    wanted = ZSTD_decompressStream(stream.get(), &out, &in);
    if (ZSTD_isError(wanted)) return absl::InvalidArgumentError(ZSTD_getErrorName(wanted));
    text.append(chunk, 0, out.pos);
    full = out.pos == out.size && wanted != 0;
  }
  if (wanted != 0) return absl::InvalidArgumentError("the zstd data is truncated");
  return text;
}

}  // namespace

absl::StatusOr<std::string> ReadText(const std::string& path) {
  PREGATE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  if (!absl::EndsWith(path, ".zst")) {
    return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  }
  absl::StatusOr<std::string> text = Decompress(file.bytes());
  if (text.ok()) return text;
  return absl::Status(text.status().code(), absl::StrCat(path, ": ", text.status().message()));
}

std::vector<absl::string_view> SplitDocuments(absl::string_view text) {
  constexpr char kEnd = '\x1e';
  std::vector<absl::string_view> documents;
  size_t begin = 0;  // of the document
  size_t line = 0;   // begin of a line
  while (line < text.size()) {
    const size_t line_end = std::min(text.find('\n', line), text.size());
    const size_t next = std::min(line_end + 1, text.size());
    if (line_end - line == 1 && text[line] == kEnd) {
      documents.push_back(text.substr(begin, line - begin));
      begin = next;
    }
    line = next;
  }
  if (begin < text.size()) documents.push_back(text.substr(begin));
  return documents;
}

}  // namespace pregate
