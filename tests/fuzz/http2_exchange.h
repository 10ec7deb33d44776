// HTTP/2 as a gRPC client speaks it (RFC 9113), frame by frame and without any check: what the
// mutator takes apart.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace pregate {

struct Http2Frame {
  enum Type : uint8_t {
    kData = 0,
    kHeaders = 1,
    kRstStream = 3,
    kSettings = 4,
    kPing = 6,
    kWindowUpdate = 8,
  };
  static constexpr uint8_t kEndStream = 1;
  static constexpr uint8_t kEndHeaders = 4;

  uint8_t type = kData;
  uint8_t flags = 0;
  uint32_t stream = 0;
  std::string payload;
};

// What a client sends over one connection, behind the preface.
using Http2Exchange = std::vector<Http2Frame>;

// The frames of one call of `method`, such as "/pregate.v1.InferenceService/Generate", whose
// request has those bytes.
Http2Exchange GrpcCall(uint32_t stream, absl::string_view method, absl::string_view request);

// All that goes over the wire: the preface and the frames.
std::string Serialize(const Http2Exchange& exchange);

// One byte flipped, some inserted or deleted, or the end cut off.
void MutateBytes(std::string& bytes, std::mt19937_64& random);

// `exchange` with up to eight things wrong: frames repeated, dropped, swapped, of another type,
// flags or stream, of huge lengths; then its bytes. The same of the same generator's state.
std::string Mutate(const Http2Exchange& exchange, std::mt19937_64& random);

}  // namespace pregate
