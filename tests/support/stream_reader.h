// Reads a ResponseStream the way a server does: woken, never asking in vain.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/mutex.h"
#include "core/engine/response_stream.h"

namespace pregate {

// Used by one thread.
class StreamReader {
 public:
  explicit StreamReader(std::shared_ptr<ResponseStream> stream) : stream_(std::move(stream)) {
    stream_->SetWake([this] {
      MutexLock lock(mutex_);
      woken_ = true;
      changed_.NotifyAll();
    });
  }
  ~StreamReader() { stream_->SetWake(nullptr); }
  StreamReader(const StreamReader&) = delete;
  StreamReader& operator=(const StreamReader&) = delete;

  // Waits until `count` tokens or the completion have come; all the tokens so far.
  const std::vector<GeneratedToken>& AwaitTokens(size_t count) {
    while (tokens_.size() < count && !completion_.has_value()) Await();
    return tokens_;
  }
  const Completion& AwaitCompletion() {
    while (!completion_.has_value()) Await();
    return *completion_;
  }

  const std::vector<GeneratedToken>& tokens() const { return tokens_; }
  ResponseStream& stream() { return *stream_; }

 private:
  void Await() {
    {
      MutexLock lock(mutex_);
      while (!woken_) changed_.Wait(mutex_);
      woken_ = false;
    }
    ResponseStream::Batch batch = stream_->Take();
    for (GeneratedToken& token : batch.tokens) tokens_.push_back(std::move(token));
    if (batch.completion.has_value()) completion_ = std::move(batch.completion);
  }

  const std::shared_ptr<ResponseStream> stream_;
  std::vector<GeneratedToken> tokens_;
  std::optional<Completion> completion_;

  Mutex mutex_;
  CondVar changed_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
};

inline std::vector<uint32_t> TokenIds(const std::vector<GeneratedToken>& tokens) {
  std::vector<uint32_t> ids;
  for (const GeneratedToken& token : tokens) ids.push_back(token.token_id);
  return ids;
}

}  // namespace pregate
