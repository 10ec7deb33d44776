// Which of the waiting sequences runs next.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "core/base/clock.h"
#include "core/engine/sequence.h"

namespace pregate {

// Priorities are strict, but age: a priority none of whose waiting sequences was taken for kAgeing
// takes precedence over what is one level higher. So the lowest gets a place at least every
// 2 · kMaxPriority · kAgeing in which places come free.
//
// Within a priority the clients share the tokens: the next sequence is the oldest of the client
// that was served least, where a client that comes back after a pause starts no lower than those
// who kept waiting; unused time is not saved up. This is the Virtual Token Counter of Sheng et al.,
// "Fairness in Serving Large Language Models", OSDI '24, algorithm 2 and its weights: a prompt is
// charged when it is taken, since its cost is known then, an answer token by token as it comes.
// Between clients that wait all along, what they were served differs by at most
// 2 · kAnswerWeight · (tokens, of prompts and answers, that can run at once) (theorem 4.4).
// A client that had nothing here waits for no other's backlog: it gets a place of its priority
// before any other client gets a second one.
//
// Not thread-safe.
class FairQueue {
 public:
  static constexpr Duration kAgeing = std::chrono::seconds(10);
  static constexpr uint64_t kPromptWeight = 1;
  static constexpr uint64_t kAnswerWeight = 2;

  void Add(std::unique_ptr<Sequence> sequence);

  // The one that Pop would give; nullptr when none waits.
  const Sequence* Next() const;
  // Where it stands in the order of all priorities: what is earlier goes first. One has to wait.
  TimePoint NextRank() const { return RankOf(NextLevel()->second.waits_since, NextLevel()->first); }
  // Of something of this priority that waits since then: a level is worth kAgeing.
  static TimePoint RankOf(TimePoint since, int32_t priority) { return since - priority * kAgeing; }
  // One has to wait. Whoever pops a sequence reports what becomes of it.
  std::unique_ptr<Sequence> Pop(TimePoint now);
  void OnGenerated(const Sequence& popped);  // a token
  void OnEnded(const Sequence& popped);

  // Takes those out that `is_over`, of one client in the order in which they were added.
  std::vector<std::unique_ptr<Sequence>> TakeIf(absl::FunctionRef<bool(const Sequence&)> is_over);

  size_t size() const { return size_; }

 private:
  struct Client {
    std::deque<std::unique_ptr<Sequence>> waiting;
    uint32_t num_popped = 0;  // and not ended
    uint64_t served = 0;      // tokens, weighted

    bool is_idle() const { return waiting.empty() && num_popped == 0; }
  };
  // Those of one priority.
  struct Level {
    TimePoint waits_since = {};  // the last Pop, or when a sequence came and none waited
    // What the client of the last Pop was served before it, the least of all who waited. A served
    // below it says nothing: who comes back is lifted to it.
    uint64_t floor = 0;
    size_t num_waiting = 0;
    std::map<std::string, Client> clients;
  };
  using Levels = std::map<int32_t, Level, std::greater<>>;  // by priority

  // The place of the next sequence: its level, and a client that waits there. One has to wait.
  Levels::const_iterator NextLevel() const;
  static std::map<std::string, Client>::const_iterator NextClient(const Level& level);
  Client& ClientOf(const Sequence& popped);
  // Forgets what no longer tells anything, so that clients who are gone take no memory.
  void Forget(Levels::iterator level);

  Levels levels_;
  size_t size_ = 0;
};

}  // namespace pregate
