// The whole engine under threads that come, read, cancel and go as they like: each gets its own
// answer. What is asserted holds for every interleaving; ThreadSanitizer watches the rest.
#include <memory>
#include <utility>
#include <vector>

#include "core/base/thread.h"
#include "core/engine/engine_loop.h"
#include "gtest/gtest.h"
#include "rapidcheck.h"
#include "rapidcheck/gtest.h"
#include "tests/property/workload.h"
#include "tests/support/recorded_stats.h"
#include "tests/support/stream_reader.h"

namespace pregate {
namespace {

enum class Act { kReads, kCancels, kStops };

// A client: reads `patience` tokens, then does `act` and reads on to the end.
struct Client {
  Request request;
  Act act = Act::kReads;
  size_t patience = 0;

  std::vector<GeneratedToken> tokens = {};
  Completion completion = {};

  void Run(EngineLoop& loop) {
    absl::StatusOr<std::shared_ptr<ResponseStream>> stream = loop.Submit(request);
    if (!stream.ok()) {
      completion.status = stream.status();
      return;
    }
    StreamReader reader(*std::move(stream));
    reader.AwaitTokens(patience);
    if (act == Act::kCancels) reader.stream().Cancel();
    if (act == Act::kStops) reader.stream().Stop();
    completion = reader.AwaitCompletion();
    tokens = reader.tokens();
  }
};

void showValue(const Client& client, std::ostream& os) {
  os << client.request << " act " << static_cast<int>(client.act) << " after " << client.patience;
}

Client AnyClient(const ModelRunner::Limits& limits) {
  Client client;
  client.request = AnyRequest(limits);
  client.act = *rc::gen::element(Act::kReads, Act::kReads, Act::kCancels, Act::kStops);
  client.patience = *rc::gen::inRange<size_t>(0, 20);
  return client;
}

RC_GTEST_PROP(EngineLoopProperty, GivesEveryReaderItsOwnAnswer, ()) {
  constexpr size_t kThreads = 3;
  FakeRunner::Options options;
  options.limits = {.vocab_size = 40, .max_context = 48, .kv_block_size = 4, .num_kv_blocks = 20};
  FakeRunner runner(options);
  auto clients = *rc::gen::container<std::vector<Client>>(
      rc::gen::exec([&options] { return AnyClient(options.limits); }));
  const RealClock clock;
  const Logger logger(LogLevel::kError);
  EngineLoop loop(
      {.max_batch_tokens = 8, .max_running = 2, .max_queued = kThreads}, runner, clock, logger);
  {
    std::vector<std::unique_ptr<Thread>> threads;
    for (size_t t = 0; t < kThreads; ++t) {
      threads.push_back(std::make_unique<Thread>("client", [&clients, &loop, t] {
        for (size_t i = t; i < clients.size(); i += kThreads) clients[i].Run(loop);
      }));
    }
  }
  for (const Client& client : clients) {
    RC_ASSERT(CheckAnswer(client.request, client.tokens, client.completion, runner) == "");
    const absl::Status& status = client.completion.status;
    RC_ASSERT((status.ok() ||
               (client.act == Act::kCancels && status.code() == absl::StatusCode::kCancelled)));
  }
  RC_ASSERT(loop.health() == absl::OkStatus());
  const EngineLoad load = loop.load();
  RC_ASSERT(load.running + load.waiting + load.kv_blocks_used == 0u);
  RecordedStats stats;
  loop.VisitStats(stats);
  RC_ASSERT(stats.count("request_duration_seconds") == clients.size());
}

}  // namespace
}  // namespace pregate
