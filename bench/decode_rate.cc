#include "bench/decode_rate.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "core/base/mutex.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// Waits for the ends of several streams. Thread-safe.
class Completions {
 public:
  explicit Completions(size_t num_streams) : completions_(num_streams), missing_(num_streams) {}

  void Take(size_t index, ResponseStream& stream) {
    ResponseStream::Batch batch = stream.Take();
    if (!batch.completion.has_value()) return;
    MutexLock lock(mutex_);
    completions_[index] = *std::move(batch.completion);
    if (--missing_ == 0) all_there_.NotifyAll();
  }

  std::vector<Completion> Await() {
    MutexLock lock(mutex_);
    while (missing_ > 0) all_there_.Wait(mutex_);
    return completions_;
  }

 private:
  Mutex mutex_;
  CondVar all_there_;
  std::vector<Completion> completions_ ABSL_GUARDED_BY(mutex_);
  size_t missing_ ABSL_GUARDED_BY(mutex_);
};

// When a sequence's first and last token came, in seconds.
struct Decoding {
  double first = 0;
  double last = 0;
};

// Tokens per second of all sequences while the one decodes that began last. Of the others, whose
// `num_steps` decode steps may have begun earlier, counts what falls into that time.
double RateOf(const std::vector<Decoding>& decodings, uint32_t num_steps) {
  const Decoding latest = *std::max_element(
      decodings.begin(), decodings.end(), [](const Decoding& a, const Decoding& b) {
        return a.first < b.first;
      });
  double num_tokens = 0;
  for (const Decoding& decoding : decodings) {
    const double shared = std::min(decoding.last, latest.last) - latest.first;
    num_tokens += num_steps * std::max(0.0, shared) / (decoding.last - decoding.first);
  }
  return num_tokens / (latest.last - latest.first);
}

}  // namespace

absl::StatusOr<double> MeasureDecodeRate(Engine& engine,
                                         const std::vector<std::vector<uint32_t>>& prompts,
                                         uint32_t output_len) {
  Completions completions(prompts.size());
  std::vector<std::shared_ptr<ResponseStream>> streams;
  std::vector<TimePoint> submitted;
  for (const std::vector<uint32_t>& prompt : prompts) {
    Request request;
    request.prompt_token_ids = prompt;
    request.sampling.temperature = 0;
    request.stopping.max_tokens = output_len;
    submitted.push_back(engine.clock().Now());
    auto stream = engine.Submit(std::move(request));
    if (!stream.ok()) {
      for (const auto& earlier : streams) earlier->Cancel();
      return stream.status();
    }
    streams.push_back(*std::move(stream));
  }
  // Taken on the engine's thread: what is timed is the engine, not a reader's waking up.
  for (size_t i = 0; i < streams.size(); ++i) {
    streams[i]->SetWake(
        [&completions, i, stream = streams[i].get()] { completions.Take(i, *stream); });
  }
  const std::vector<Completion> ends = completions.Await();
  for (const auto& stream : streams) stream->SetWake(nullptr);

  std::vector<Decoding> decodings;
  for (size_t i = 0; i < ends.size(); ++i) {
    PREGATE_RETURN_IF_ERROR(ends[i].status);
    const double first = ToSeconds(submitted[i] - submitted.front()) + ends[i].queue_seconds +
                         ends[i].prefill_seconds;
    decodings.push_back({.first = first, .last = first + ends[i].decode_seconds});
  }
  return RateOf(decodings, output_len - 1);
}

}  // namespace pregate
