#include "tests/fuzz/http2_exchange.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"

namespace pregate {
namespace {

constexpr absl::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kLongestInsertion = 64;

std::string BigEndian(uint64_t number, size_t size) {
  std::string bytes;
  for (size_t i = size; i-- > 0;) bytes.push_back(static_cast<char>(number >> (8 * i)));
  return bytes;
}

// An HPACK literal without indexing, name and value spelled out (RFC 7541, 6.2.2).
std::string Header(absl::string_view name, absl::string_view value) {
  PREGATE_CHECK(name.size() < 127 && value.size() < 127, name);  // a length of one byte
  return absl::StrCat(
      std::string(1, '\0'), BigEndian(name.size(), 1), name, BigEndian(value.size(), 1), value);
}

std::string Serialize(const Http2Frame& frame, size_t length) {
  return absl::StrCat(BigEndian(length, 3),
                      BigEndian(frame.type, 1),
                      BigEndian(frame.flags, 1),
                      BigEndian(frame.stream, 4),
                      frame.payload);
}

// Below `bound`; the standard's distributions differ between libraries.
size_t Below(size_t bound, std::mt19937_64& random) { return random() % bound; }

uint32_t AnyOf(std::initializer_list<uint32_t> values, std::mt19937_64& random) {
  return values.begin()[Below(values.size(), random)];
}

void MutateFrames(Http2Exchange& exchange, std::mt19937_64& random) {
  if (exchange.empty()) return;
  const size_t at = Below(exchange.size(), random);
  const auto it = exchange.begin() + static_cast<ptrdiff_t>(at);
  switch (Below(6, random)) {
    case 0: {
      const Http2Frame copy = *it;
      exchange.insert(it, 1 + Below(200, random), copy);
      break;
    }
    case 1:
      exchange.erase(it);
      break;
    case 2:
      std::swap(*it, exchange[Below(exchange.size(), random)]);
      break;
    case 3:
      it->type = static_cast<uint8_t>(Below(12, random));
      break;
    case 4:
      it->flags ^= static_cast<uint8_t>(1 << Below(8, random));
      break;
    case 5:
      it->stream = AnyOf({0, 1, 2, 3, 5, 0x7FFFFFFF, 0x80000001}, random);
      break;
  }
}

}  // namespace

void MutateBytes(std::string& bytes, std::mt19937_64& random) {
  if (bytes.empty()) return;
  const size_t at = Below(bytes.size(), random);
  switch (Below(4, random)) {
    case 0:
      bytes[at] = static_cast<char>(bytes[at] ^ 1 << Below(8, random));
      break;
    case 1: {
      std::string inserted(1 + Below(kLongestInsertion, random), '\0');
      for (char& byte : inserted) byte = static_cast<char>(random());
      bytes.insert(at, inserted);
      break;
    }
    case 2:
      bytes.erase(at, 1 + Below(kLongestInsertion, random));
      break;
    case 3:
      bytes.resize(at);
      break;
  }
}

Http2Exchange GrpcCall(uint32_t stream, absl::string_view method, absl::string_view request) {
  Http2Frame headers;
  headers.type = Http2Frame::kHeaders;
  headers.flags = Http2Frame::kEndHeaders;
  headers.stream = stream;
  headers.payload = absl::StrCat(Header(":method", "POST"),
                                 Header(":scheme", "http"),
                                 Header(":path", method),
                                 Header(":authority", "localhost"),
                                 Header("te", "trailers"),
                                 Header("content-type", "application/grpc"),
                                 Header("grpc-timeout", "20S"));
  Http2Frame data;
  data.flags = Http2Frame::kEndStream;
  data.stream = stream;
  // gRPC's own prefix: not compressed, and the length.
  data.payload = absl::StrCat(std::string(1, '\0'), BigEndian(request.size(), 4), request);
  return {headers, data};
}

std::string Serialize(const Http2Exchange& exchange) {
  std::string bytes(kPreface);
  for (const Http2Frame& frame : exchange) bytes += Serialize(frame, frame.payload.size());
  return bytes;
}

std::string Mutate(const Http2Exchange& exchange, std::mt19937_64& random) {
  Http2Exchange frames = exchange;
  const size_t num_mutations = AnyOf({1, 2, 4, 8}, random);
  const size_t of_frames = Below(num_mutations + 1, random);
  for (size_t i = 0; i < of_frames; ++i) MutateFrames(frames, random);
  // Mostly behind the preface: without it nothing is parsed.
  std::string bytes;
  for (const Http2Frame& frame : frames) {
    const bool lies = Below(16, random) == 0;
    const size_t length =
        lies ? AnyOf({0, 1, 0x4000, 0x4001, 0xFFFFFF}, random) : frame.payload.size();
    bytes += Serialize(frame, length);
  }
  for (size_t i = of_frames; i < num_mutations; ++i) MutateBytes(bytes, random);
  std::string preface(kPreface);
  if (Below(32, random) == 0) MutateBytes(preface, random);
  return preface + bytes;
}

}  // namespace pregate
