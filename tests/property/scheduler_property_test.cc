// The scheduler under random arrivals, cancels, stops, deadlines and failures, with KV blocks that
// run out or not: every plan keeps the rules, every request ends exactly once and for a true
// reason, and what it got is what it would have got alone, where nothing ever runs out.
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/engine/scheduler.h"
#include "gtest/gtest.h"
#include "rapidcheck.h"
#include "rapidcheck/gtest.h"
#include "tests/property/workload.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_runner.h"
#include "tests/support/recorded_stats.h"

namespace pregate {
namespace {

constexpr Duration kStepTime = std::chrono::seconds(1);
constexpr int kNever = -1;
constexpr int kLastArrival = 30;

// A request and the steps before which things happen to it.
struct Script {
  Request request;
  int arrival = 0;
  int cancel = kNever;
  int stop = kNever;
  int deadline = kNever;
  int failure = kNever;  // how many of its tokens come before one that fails
};

void showValue(const Script& script, std::ostream& os) {
  os << script.request << " arrives " << script.arrival << " cancels " << script.cancel << " stops "
     << script.stop << " expires " << script.deadline << " fails " << script.failure;
}

int MaybeStep(int from) {
  return *rc::gen::inRange(0, 4) == 0 ? from + *rc::gen::inRange(0, 20) : kNever;
}

Script AnyScript(const ModelRunner::Limits& limits) {
  Script script;
  script.request = AnyRequest(limits);
  script.arrival = *rc::gen::inRange(0, kLastArrival + 1);
  script.cancel = MaybeStep(script.arrival);
  script.stop = MaybeStep(script.arrival);
  script.deadline = MaybeStep(script.arrival);
  if (*rc::gen::inRange(0, 6) == 0) script.failure = *rc::gen::inRange(0, 4);
  return script;
}

// What is known of a request from outside.
struct Observed {
  std::shared_ptr<ResponseStream> stream;
  bool planned = false;
  std::vector<GeneratedToken> tokens;
  std::optional<Completion> completion;
};

class Simulation {
 public:
  Simulation(const Scheduler::Limits& limits, std::vector<Script> scripts)
      : limits_(limits),
        scripts_(std::move(scripts)),
        observed_(scripts_.size()),
        runner_(RunnerOptions()),
        scheduler_(limits, stats_) {
    for (Script& script : scripts_) {
      if (script.deadline != kNever) script.request.deadline = TimeOf(script.deadline);
    }
  }

  void Run() {
    size_t work = 0;
    for (const Script& script : scripts_) {
      work += script.request.prompt_token_ids.size() + script.request.stopping.max_tokens;
    }
    // The first in rank gets on in every step, and has at worst to begin again when it becomes the
    // first.
    const int last = kLastArrival + static_cast<int>(2 * work);
    for (int step = 0; step <= kLastArrival || !scheduler_.empty(); ++step) {
      RC_ASSERT(step <= last);
      Arrive(step);
      React(step);
      Step(step);
    }
    CheckEnd();
  }

  static ModelRunner::Limits RunnerLimits(const Scheduler::Limits& limits) {
    return {.vocab_size = 40,
            .max_context = 48,
            .kv_block_size = limits.kv_block_size,
            .num_kv_blocks = limits.num_kv_blocks};
  }

 private:
  TimePoint TimeOf(int step) const { return start_ + step * kStepTime; }

  FakeRunner::Options RunnerOptions() {
    FakeRunner::Options options;
    options.limits = RunnerLimits(limits_);
    options.before_token = [this](const SequenceStep& step) {
      const int failure = scripts_[step.sequence_id].failure;
      const size_t tokens = step.first_position + step.token_ids.size() -
                            scripts_[step.sequence_id].request.prompt_token_ids.size();
      return failure != kNever && tokens >= static_cast<size_t>(failure)
                 ? absl::InternalError("injected")
                 : absl::OkStatus();
    };
    return options;
  }

  void Arrive(int step) {
    for (size_t i = 0; i < scripts_.size(); ++i) {
      if (scripts_[i].arrival != step) continue;
      observed_[i].stream = std::make_shared<ResponseStream>();
      arrived_.push_back(i);
      scheduler_.Add(
          std::make_unique<Sequence>(i, scripts_[i].request, observed_[i].stream, clock_.Now()));
    }
  }

  void React(int step) {
    for (size_t i = 0; i < scripts_.size(); ++i) {
      if (scripts_[i].cancel == step) observed_[i].stream->Cancel();
      if (scripts_[i].stop == step) observed_[i].stream->Stop();
    }
  }

  void Step(int step) {
    const StepPlan& plan = scheduler_.Plan(clock_.Now());
    Collect();
    CheckPlan(plan, step);
    if (plan.sequences.empty()) return clock_.Advance(kStepTime);
    absl::StatusOr<StepResult> result = runner_.Run(plan);
    clock_.Advance(kStepTime);
    RC_ASSERT(result.status() == absl::OkStatus());
    scheduler_.Apply(*std::move(result), clock_.Now());
    Collect();
  }

  // Takes what the scheduler has delivered and who has ended.
  void Collect() {
    for (Scheduler::Ended& ended : scheduler_.TakeEnded()) {
      ended.stream->Finish(std::move(ended.completion));
    }
    for (const size_t i : arrived_) {
      ResponseStream::Batch batch = observed_[i].stream->Take();
      for (GeneratedToken& token : batch.tokens) observed_[i].tokens.push_back(std::move(token));
      if (!batch.completion.has_value()) continue;
      RC_ASSERT(!observed_[i].completion.has_value());
      observed_[i].completion = std::move(batch.completion);
      CheckDeadline(i);
    }
  }

  void CheckPlan(const StepPlan& plan, int step) {
    RC_ASSERT(plan.sequences.empty() == scheduler_.empty());
    RC_ASSERT(plan.num_tokens() <= limits_.max_batch_tokens);
    RC_ASSERT(plan.sequences.size() <= limits_.max_running);
    bool others_began = false;
    std::set<uint64_t> planned;
    for (const SequenceStep& part : plan.sequences) {
      const Script& script = scripts_[part.sequence_id];
      Observed& observed = observed_[part.sequence_id];
      // Nobody is advanced who is over, and generating sequences come first.
      RC_ASSERT(!observed.completion.has_value());
      RC_ASSERT(observed.stream->reader_state() == ResponseStream::ReaderState::kReading);
      RC_ASSERT((script.deadline == kNever || step < script.deadline));
      const bool generates =
          !part.is_prompt && part.token_ids.size() == 1 && part.sampling != nullptr;
      RC_ASSERT((!generates || !others_began));
      others_began |= !generates;
      observed.planned = true;
      planned.insert(part.sequence_id);
    }
    CheckOrder(planned);
  }

  void CheckOrder(const std::set<uint64_t>& planned) {
    // Of one priority and client, first come, first served. (FairQueue's own tests have the rest.)
    std::map<std::pair<int32_t, std::string>, bool> someone_waits;
    for (const size_t i : arrived_) {
      const Observed& observed = observed_[i];
      if (observed.completion.has_value()) continue;
      const Request& request = scripts_[i].request;
      bool& earlier_one_waits = someone_waits[{request.priority, request.client}];
      RC_ASSERT((!observed.planned || !earlier_one_waits));
      earlier_one_waits |= !observed.planned;
      // Unless blocks run out, whoever generates is in every plan.
      RC_ASSERT((!has_blocks_for_all() || observed.tokens.empty() || planned.count(i) == 1));
    }
  }

  bool has_blocks_for_all() const {
    const uint32_t context = RunnerLimits(limits_).max_context;
    const uint32_t each = (context + limits_.kv_block_size - 1) / limits_.kv_block_size;
    return limits_.num_kv_blocks >= limits_.max_running * (each + 1);
  }

  void CheckEnd() {
    RC_ASSERT(scheduler_.empty());
    RC_ASSERT(scheduler_.blocks().num_used() == 0u);
    uint64_t delivered = 0;
    uint64_t admitted_prompt_tokens = 0;
    uint64_t cached_prompt_tokens = 0;
    for (size_t i = 0; i < scripts_.size(); ++i) {
      RC_ASSERT(observed_[i].completion.has_value());
      const Completion& completion = *observed_[i].completion;
      RC_ASSERT(CheckAnswer(scripts_[i].request, observed_[i].tokens, completion, runner_) == "");
      CheckReason(scripts_[i], completion);
      RC_ASSERT((completion.expert_usage == runner_.UsageOf(i)));
      delivered += observed_[i].tokens.size();
      if (!observed_[i].tokens.empty()) admitted_prompt_tokens += completion.prompt_tokens;
      cached_prompt_tokens += completion.cached_prompt_tokens;
    }
    RecordedStats stats;
    stats_.Visit({}, stats);
    RC_ASSERT(stats.count("time_to_first_token_seconds") +
                  stats.count("inter_token_latency_seconds") ==
              delivered);
    RC_ASSERT(stats.count("request_duration_seconds") == scripts_.size());
    const double cached = stats.value("prompt_tokens_total{source=\"prefix_cache\"}");
    const double computed = stats.value("prompt_tokens_total{source=\"computed\"}");
    RC_ASSERT(cached == static_cast<double>(cached_prompt_tokens));
    RC_ASSERT(computed + cached >= static_cast<double>(admitted_prompt_tokens));
    RC_TAG(cached > 0 ? "reused" : "never reused");
    const double preemptions = stats.value("preemptions_total");
    RC_ASSERT((!has_blocks_for_all() || preemptions == 0));
    RC_TAG(preemptions > 0 ? "preempted" : "never preempted");
  }

  // Who is told that his deadline cannot be met never began, and would have been too late even if
  // every step from now on had been his.
  void CheckDeadline(size_t i) {
    const Request& request = scripts_[i].request;
    const Completion& completion = *observed_[i].completion;
    if (!absl::IsDeadlineExceeded(completion.status) || clock_.Now() >= *request.deadline) return;
    RC_ASSERT(!observed_[i].planned);
    const size_t steps =
        (request.prompt_token_ids.size() + limits_.max_batch_tokens - 1) / limits_.max_batch_tokens;
    RC_ASSERT(clock_.Now() + steps * kStepTime > *request.deadline);
  }

  static void CheckReason(const Script& script, const Completion& completion) {
    const bool stopped = completion.status.ok() && completion.reason == FinishReason::kStop &&
                         !completion.stop_token_id.has_value();
    RC_ASSERT((!stopped || script.stop != kNever));
    switch (completion.status.code()) {
      case absl::StatusCode::kOk:
        break;
      case absl::StatusCode::kCancelled:
        RC_ASSERT(script.cancel != kNever);
        break;
      case absl::StatusCode::kDeadlineExceeded:
        RC_ASSERT(script.deadline != kNever);
        break;
      default:
        RC_ASSERT(completion.status == absl::InternalError("injected"));
        RC_ASSERT(static_cast<int>(completion.completion_tokens) == script.failure);
    }
  }

  const Scheduler::Limits limits_;
  std::vector<Script> scripts_;
  std::vector<Observed> observed_;
  std::vector<size_t> arrived_;  // in order
  FakeClock clock_;
  const TimePoint start_ = clock_.Now();
  EngineStats stats_;
  FakeRunner runner_;
  Scheduler scheduler_;
};

RC_GTEST_PROP(SchedulerProperty, GivesEveryRequestWhatItGetsAlone, ()) {
  Scheduler::Limits limits;
  limits.max_batch_tokens = *rc::gen::inRange(1u, 24u);
  limits.max_running = *rc::gen::inRange(1u, 8u);
  limits.kv_block_size = *rc::gen::inRange(1u, 6u);
  limits.num_kv_blocks = *rc::gen::element(8u, 12u, 20u, 40u, 400u);
  const ModelRunner::Limits runner = Simulation::RunnerLimits(limits);
  const auto scripts = *rc::gen::container<std::vector<Script>>(
      rc::gen::exec([runner] { return AnyScript(runner); }));
  Simulation(limits, scripts).Run();
}

}  // namespace
}  // namespace pregate
