// What a FairQueue promises, under whatever requests come and however long they run.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/engine/fair_queue.h"
#include "gtest/gtest.h"
#include "rapidcheck.h"
#include "rapidcheck/gtest.h"
#include "tests/support/fake_clock.h"

namespace pregate {
namespace {

constexpr uint32_t kMaxPrompt = 30;
constexpr uint32_t kMaxAnswer = 20;

// A queue and the places behind it: sequences that run generate a token a step.
class Places {
 public:
  explicit Places(size_t num_places) : num_places_(num_places) {}

  void Add(const std::string& client, int32_t priority, uint32_t prompt, uint32_t answer) {
    Request request;
    request.prompt_token_ids.assign(prompt, 1);
    request.stopping.max_tokens = answer;
    request.priority = priority;
    request.client = client;
    queue_.Add(std::make_unique<Sequence>(
        next_id_++, std::move(request), std::make_shared<ResponseStream>(), clock_.Now()));
    answers_.push_back(answer);
    ++waiting_[client];
  }

  // Those who are admitted, then a token each.
  std::vector<std::string> Step() {
    std::vector<std::string> admitted;
    while (running_.size() < num_places_ && queue_.Next() != nullptr) {
      running_.push_back(queue_.Pop(clock_.Now()));
      const Sequence& sequence = *running_.back();
      admitted.push_back(sequence.client());
      --waiting_[sequence.client()];
      served_[sequence.client()] += FairQueue::kPromptWeight * sequence.prompt_size();
    }
    for (auto& sequence : running_) {
      queue_.OnGenerated(*sequence);
      served_[sequence->client()] += FairQueue::kAnswerWeight;
      if (--answers_[sequence->id()] > 0) continue;
      queue_.OnEnded(*sequence);
      sequence.reset();
    }
    std::erase(running_, nullptr);
    clock_.Advance(std::chrono::seconds(1));
    return admitted;
  }

  size_t waiting(const std::string& client) { return waiting_[client]; }
  uint64_t served(const std::string& client) { return served_[client]; }
  size_t num_waiting() const { return queue_.size(); }
  size_t num_running() const { return running_.size(); }

 private:
  const size_t num_places_;
  FakeClock clock_;
  FairQueue queue_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::vector<uint32_t> answers_;  // tokens that are still to come, by id
  std::map<std::string, size_t> waiting_;
  std::map<std::string, uint64_t> served_;
  uint64_t next_id_ = 0;
};

void AddAny(Places& places, const std::string& client, int32_t priority = 0) {
  places.Add(client,
             priority,
             *rc::gen::inRange<uint32_t>(1, kMaxPrompt + 1),
             *rc::gen::inRange<uint32_t>(1, kMaxAnswer + 1));
}

RC_GTEST_PROP(FairQueueProperty, ServesClientsWhoWaitAllAlongAlike, ()) {
  const auto num_places = *rc::gen::inRange<size_t>(1, 6);
  Places places(num_places);
  const std::vector<std::string> clients = {"a", "b", "c"};
  // They come when others have long been served, and bring what they like.
  const auto start = *rc::gen::inRange(0, 20);
  for (int step = 0; step < start; ++step) {
    AddAny(places, *rc::gen::element<std::string>("a", "d"));
    places.Step();
  }
  std::map<std::string, uint64_t> before;
  for (int step = 0; step < 60; ++step) {
    for (const std::string& client : clients) {
      while (places.waiting(client) < num_places) AddAny(places, client);
      if (step == 0) before[client] = places.served(client);
    }
    places.Step();
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;
    for (const std::string& client : clients) {
      least = std::min(least, places.served(client) - before[client]);
      most = std::max(most, places.served(client) - before[client]);
    }
    const uint64_t at_once = num_places * (kMaxPrompt + kMaxAnswer);
    const uint64_t bound = 2 * FairQueue::kAnswerWeight * at_once;
    RC_ASSERT(most - least <= bound);
  }
}

RC_GTEST_PROP(FairQueueProperty, FloodsDelayANewClientByAPlaceEachAtMost, ()) {
  Places places(*rc::gen::inRange<size_t>(1, 6));
  const auto num_floods = *rc::gen::inRange(1, 4);
  const auto steps = *rc::gen::inRange(1, 40);
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < num_floods; ++i) {
      for (int n = 0; n < 4; ++n) AddAny(places, std::string(1, static_cast<char>('a' + i)));
    }
    places.Step();
  }
  AddAny(places, "new");
  std::map<std::string, int> admitted;
  while (admitted["new"] == 0) {
    for (const std::string& client : places.Step()) {
      ++admitted[client];
      RC_ASSERT((admitted[client] <= 1 || admitted["new"] > 0));
    }
  }
}

RC_GTEST_PROP(FairQueueProperty, NoPriorityWaitsForEver, ()) {
  Places places(1);
  const auto low = *rc::gen::inRange(-kMaxPriority, kMaxPriority + 1);
  AddAny(places, "low", low);
  // A place is free at least every kMaxAnswer steps of a second, and others always want it.
  const int64_t patience =
      2 * kMaxPriority * FairQueue::kAgeing / std::chrono::seconds(1) + 2 * kMaxAnswer;
  int64_t step = 0;
  for (; places.waiting("low") > 0; ++step) {
    RC_ASSERT(step <= patience);
    if (places.waiting("high") < 2) {
      places.Add("high",
                 *rc::gen::element(kMaxPriority, low),
                 1,
                 *rc::gen::inRange<uint32_t>(1, kMaxAnswer + 1));
    }
    places.Step();
  }
}

RC_GTEST_PROP(FairQueueProperty, LosesNobody, ()) {
  Places places(*rc::gen::inRange<size_t>(1, 6));
  size_t added = 0;
  size_t admitted = 0;
  for (int step = 0; step < 50 || places.num_waiting() + places.num_running() > 0; ++step) {
    if (step < 50 && *rc::gen::arbitrary<bool>()) {
      AddAny(places,
             *rc::gen::element<std::string>("", "a", "b"),
             *rc::gen::inRange(-kMaxPriority, kMaxPriority + 1));
      ++added;
    }
    admitted += places.Step().size();
  }
  RC_ASSERT(admitted == added);
}

}  // namespace
}  // namespace pregate
