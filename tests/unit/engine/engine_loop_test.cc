#include "core/engine/engine_loop.h"

#include <map>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_runner.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using std::chrono::seconds;

// Reads a stream to its end.
class Reader {
 public:
  explicit Reader(std::shared_ptr<ResponseStream> stream) : stream_(std::move(stream)) {
    stream_->SetWake([this] {
      MutexLock lock(mutex_);
      woken_ = true;
      changed_.NotifyAll();
    });
  }
  ~Reader() { stream_->SetWake(nullptr); }

  // Waits until `count` tokens have come, or the completion.
  const std::vector<uint32_t>& AwaitTokens(size_t count) {
    while (token_ids_.size() < count && !completion_.has_value()) Await();
    return token_ids_;
  }
  const Completion& AwaitCompletion() {
    while (!completion_.has_value()) Await();
    return *completion_;
  }
  const std::vector<uint32_t>& token_ids() const { return token_ids_; }

 private:
  void Await() {
    {
      MutexLock lock(mutex_);
      while (!woken_) changed_.Wait(mutex_);
      woken_ = false;
    }
    ResponseStream::Batch batch = stream_->Take();
    for (const GeneratedToken& token : batch.tokens) token_ids_.push_back(token.token_id);
    if (batch.completion.has_value()) completion_ = std::move(batch.completion);
  }

  const std::shared_ptr<ResponseStream> stream_;
  Mutex mutex_;
  CondVar changed_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<uint32_t> token_ids_;
  std::optional<Completion> completion_;
};

// Counters and gauges by name{label values}; histograms by their count.
class StatsMap final : public StatsVisitor {
 public:
  void OnCounter(absl::string_view name,
                 absl::string_view,
                 const Labels& labels,
                 double value) override {
    values_[Key(name, labels)] = value;
  }
  void OnGauge(absl::string_view name,
               absl::string_view,
               const Labels& labels,
               double value) override {
    values_[Key(name, labels)] = value;
  }
  void OnHistogram(absl::string_view name,
                   absl::string_view,
                   const Labels& labels,
                   const Histogram::Snapshot& snapshot) override {
    uint64_t count = 0;
    for (const uint64_t bucket : snapshot.bucket_counts) count += bucket;
    values_[Key(name, labels)] = static_cast<double>(count);
  }
  double at(const std::string& key) const { return values_.at(key); }

 private:
  static std::string Key(absl::string_view name, const Labels& labels) {
    std::string key(name);
    for (const auto& [label, value] : labels) absl::StrAppend(&key, "{", value, "}");
    return key;
  }
  std::map<std::string, double> values_;
};

Request Ask(std::vector<uint32_t> prompt, uint32_t max_tokens) {
  Request request;
  request.prompt_token_ids = std::move(prompt);
  request.stopping.max_tokens = max_tokens;
  return request;
}

std::vector<uint32_t> Ids(const std::vector<GeneratedToken>& tokens) {
  std::vector<uint32_t> ids;
  for (const GeneratedToken& token : tokens) ids.push_back(token.token_id);
  return ids;
}

class EngineLoopTest : public ::testing::Test {
 protected:
  ~EngineLoopTest() override { gate_.Open(); }

  // Steps pass the gate: Open it or release them one by one.
  void Start(EngineLoop::Options options, FakeRunner::Options runner = {}) {
    runner.gate = &gate_;
    runner_ = std::make_unique<FakeRunner>(std::move(runner));
    loop_ = std::make_unique<EngineLoop>(options, *runner_, clock_, logger_);
  }
  void Start() { Start({.max_batch_tokens = 16, .max_running = 4, .max_queued = 4}); }

  std::unique_ptr<Reader> Submit(Request request) {
    auto stream = loop_->Submit(std::move(request));
    EXPECT_TRUE(stream.ok()) << stream.status();
    streams_.push_back(*stream);
    return std::make_unique<Reader>(*std::move(stream));
  }
  std::vector<uint32_t> Answer(std::vector<uint32_t> prompt, size_t num_tokens) {
    return Ids(runner_->Answer(prompt, Sampling(), num_tokens));
  }
  StatsMap Stats() {
    StatsMap stats;
    loop_->VisitStats(stats);
    return stats;
  }

  const Logger logger_{
      LogLevel::kInfo, LogFormat::kText, [this](const std::string& line) { log_.push_back(line); }};
  std::vector<std::string> log_;  // written by the engine thread: read once it has ended
  FakeClock clock_;
  StepGate gate_;
  std::unique_ptr<FakeRunner> runner_;
  std::unique_ptr<EngineLoop> loop_;
  std::vector<std::shared_ptr<ResponseStream>> streams_;
};

TEST_F(EngineLoopTest, AnswersARequest) {
  Start();
  gate_.Open();
  auto reader = Submit(Ask({1, 2, 3}, 5));
  const Completion& completion = reader->AwaitCompletion();
  EXPECT_TRUE(completion.status.ok()) << completion.status;
  EXPECT_EQ(completion.reason, FinishReason::kLength);
  EXPECT_EQ(completion.prompt_tokens, 3u);
  EXPECT_EQ(completion.completion_tokens, 5u);
  EXPECT_EQ(reader->token_ids(), Answer({1, 2, 3}, 5));
}

}  // namespace
}  // namespace pregate
