#include "core/engine/response_stream.h"

#include <utility>

#include "core/base/check.h"

namespace pregate {
namespace {

bool IsEmpty(const ResponseStream::Batch& batch) {
  return batch.tokens.empty() && !batch.completion.has_value();
}

}  // namespace

ResponseStream::Batch ResponseStream::Take() {
  MutexLock lock(mutex_);
  return std::exchange(arrived_, Batch());
}

void ResponseStream::SetWake(std::function<void()> wake) {
  {
    MutexLock lock(wake_mutex_);
    wake_ = std::move(wake);
  }
  // What arrived before wake_ was there has woken nobody. Checked after it is set: what arrives
  // from now on wakes by itself.
  bool arrived = false;
  {
    MutexLock lock(mutex_);
    arrived = !IsEmpty(arrived_);
  }
  if (arrived) Wake();
}

void ResponseStream::Cancel() {
  MutexLock lock(mutex_);
  if (reader_state_ == ReaderState::kReading) reader_state_ = ReaderState::kCancelled;
}

void ResponseStream::Stop() {
  MutexLock lock(mutex_);
  if (reader_state_ == ReaderState::kReading) reader_state_ = ReaderState::kStopped;
}

ResponseStream::ReaderState ResponseStream::reader_state() const {
  MutexLock lock(mutex_);
  return reader_state_;
}

bool ResponseStream::Push(GeneratedToken token) {
  bool first = false;
  {
    MutexLock lock(mutex_);
    PREGATE_CHECK(!finished_, "a token after the completion");
    if (reader_state_ != ReaderState::kReading) return false;
    first = IsEmpty(arrived_);
    arrived_.tokens.push_back(std::move(token));
  }
  if (first) Wake();
  return true;
}

void ResponseStream::Finish(Completion completion) {
  bool first = false;
  {
    MutexLock lock(mutex_);
    PREGATE_CHECK(!finished_, "a second completion");
    finished_ = true;
    first = IsEmpty(arrived_);
    arrived_.completion = std::move(completion);
  }
  if (first) Wake();
}

void ResponseStream::Wake() {
  MutexLock lock(wake_mutex_);
  if (wake_) wake_();
}

}  // namespace pregate
