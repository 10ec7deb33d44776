#include "bench/decode_rate.h"

#include <memory>
#include <utility>

#include "core/base/mutex.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// Counts what arrives on several streams. Thread-safe.
class Arrivals {
 public:
  Arrivals(const Clock& clock, size_t num_streams) : clock_(clock), num_streams_(num_streams) {}

  void Count(size_t stream, const ResponseStream::Batch& batch) {
    MutexLock lock(mutex_);
    const bool is_last = stream == num_streams_ - 1;
    if (is_running_) num_tokens_ += batch.tokens.size();
    if (is_last && !is_running_ && !batch.tokens.empty()) {
      is_running_ = true;
      begin_ = clock_.Now();
    }
    if (!batch.completion.has_value()) return;
    if (is_last) {
      is_running_ = false;
      end_ = clock_.Now();
    }
    if (status_.ok()) status_ = batch.completion->status;
    ++num_finished_;
    changed_.NotifyAll();
  }

  // Waits for all streams' ends. Tokens per second between the first and the last of the last
  // stream.
  absl::StatusOr<double> AwaitRate() {
    MutexLock lock(mutex_);
    while (num_finished_ < num_streams_) changed_.Wait(mutex_);
    PREGATE_RETURN_IF_ERROR(status_);
    return static_cast<double>(num_tokens_) / ToSeconds(end_ - begin_);
  }

 private:
  const Clock& clock_;
  const size_t num_streams_;
  Mutex mutex_;
  CondVar changed_;
  bool is_running_ ABSL_GUARDED_BY(mutex_) = false;  // the last stream, behind its first token
  uint64_t num_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t num_finished_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  TimePoint begin_ ABSL_GUARDED_BY(mutex_);
  TimePoint end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<double> MeasureDecodeRate(Engine& engine,
                                         const std::vector<std::vector<uint32_t>>& prompts,
                                         uint32_t output_len) {
  Arrivals arrivals(engine.clock(), prompts.size());
  std::vector<std::shared_ptr<ResponseStream>> streams;
  absl::Status status;
  for (const std::vector<uint32_t>& prompt : prompts) {
    Request request;
    request.prompt_token_ids = prompt;
    request.sampling.temperature = 0;
    request.stopping.max_tokens = output_len;
    auto stream = engine.Submit(std::move(request));
    status = stream.status();
    if (!status.ok()) break;
    streams.push_back(*std::move(stream));
  }
  if (!status.ok()) {
    for (const auto& stream : streams) stream->Cancel();
    return status;
  }
  // Taken on the engine's thread: what is timed is the engine, not a reader's waking up.
  for (size_t i = 0; i < streams.size(); ++i) {
    streams[i]->SetWake(
        [&arrivals, i, stream = streams[i].get()] { arrivals.Count(i, stream->Take()); });
  }
  absl::StatusOr<double> rate = arrivals.AwaitRate();
  for (const auto& stream : streams) stream->SetWake(nullptr);
  return rate;
}

}  // namespace pregate
