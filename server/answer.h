// An answer on its way from the engine to the wire.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/engine/response_stream.h"
#include "pregate/v1/inference.pb.h"
#include "server/text_stream.h"

namespace pregate {

// Turns a stream's tokens into text and messages; ends the stream at a stop string. Not
// thread-safe.
class Answer {
 public:
  Answer(std::shared_ptr<ResponseStream> stream, TextStream text);

  // Takes in what has arrived; returns how many tokens of it count: none behind a stop string.
  uint32_t Pull();
  // Of all that was taken in.
  uint32_t completion_tokens() const { return completion_tokens_; }

  // What is new since the last call; nothing when nothing is. Text may come without tokens, and
  // tokens without text.
  std::optional<v1::TokenDelta> TakeDelta();

  // Set when all has arrived: the next TakeDelta is the last. Behind it come `finished` and
  // `summary` when the status is OK.
  const std::optional<absl::Status>& ended() const { return ended_; }
  v1::Finished finished() const;
  v1::Summary summary() const;

  ResponseStream& stream() { return *stream_; }

 private:
  void Add(const GeneratedToken& token);

  const std::shared_ptr<ResponseStream> stream_;
  TextStream text_;
  v1::TokenDelta delta_;
  uint32_t completion_tokens_ = 0;
  Completion completion_;
  std::optional<absl::Status> ended_;
};

}  // namespace pregate
