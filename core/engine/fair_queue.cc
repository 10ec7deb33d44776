#include "core/engine/fair_queue.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "core/base/check.h"

namespace pregate {

void FairQueue::Add(std::unique_ptr<Sequence> sequence) {
  Level& level = levels_[sequence->priority()];
  if (level.num_waiting == 0) level.waits_since = sequence->submitted();
  Client& client = level.clients[sequence->client()];
  if (client.waiting.empty()) client.served = std::max(client.served, level.floor);
  client.waiting.push_back(std::move(sequence));
  ++level.num_waiting;
  ++size_;
}

const Sequence* FairQueue::Next() const {
  return size_ > 0 ? NextClient(NextLevel()->second)->second.waiting.front().get() : nullptr;
}

std::unique_ptr<Sequence> FairQueue::Pop(TimePoint now) {
  PREGATE_CHECK(size_ > 0);
  const auto level = levels_.find(NextLevel()->first);
  Client& client = level->second.clients.at(NextClient(level->second)->first);
  std::unique_ptr<Sequence> sequence = std::move(client.waiting.front());
  client.waiting.pop_front();
  ++client.num_popped;
  level->second.floor = std::max(level->second.floor, client.served);
  client.served += kPromptWeight * sequence->prompt_size();
  level->second.waits_since = now;
  --level->second.num_waiting;
  --size_;
  Forget(level);
  return sequence;
}

void FairQueue::OnGenerated(const Sequence& popped) { ClientOf(popped).served += kAnswerWeight; }

void FairQueue::OnEnded(const Sequence& popped) {
  --ClientOf(popped).num_popped;
  Forget(levels_.find(popped.priority()));
}

std::vector<std::unique_ptr<Sequence>> FairQueue::TakeIf(
    absl::FunctionRef<bool(const Sequence&)> is_over) {
  std::vector<std::unique_ptr<Sequence>> taken;
  for (auto level = levels_.begin(); level != levels_.end();) {
    const size_t before = taken.size();
    for (auto& [name, client] : level->second.clients) {
      for (std::unique_ptr<Sequence>& sequence : client.waiting) {
        if (is_over(*sequence)) taken.push_back(std::move(sequence));
      }
      std::erase(client.waiting, nullptr);
    }
    level->second.num_waiting -= taken.size() - before;
    size_ -= taken.size() - before;
    Forget(level++);
  }
  return taken;
}

FairQueue::Levels::const_iterator FairQueue::NextLevel() const {
  auto next = levels_.end();
  TimePoint first = TimePoint::max();
  for (auto level = levels_.begin(); level != levels_.end(); ++level) {
    if (level->second.num_waiting == 0) continue;
    const TimePoint rank = RankOf(level->second.waits_since, level->first);
    if (rank < first) std::tie(first, next) = std::pair(rank, level);
  }
  return next;
}

std::map<std::string, FairQueue::Client>::const_iterator FairQueue::NextClient(const Level& level) {
  auto next = level.clients.end();
  // Of equals the one who came first.
  const auto order = [](const Client& client) {
    return std::pair(client.served, client.waiting.front()->id());
  };
  for (auto client = level.clients.begin(); client != level.clients.end(); ++client) {
    if (client->second.waiting.empty()) continue;
    if (next == level.clients.end() || order(client->second) < order(next->second)) next = client;
  }
  return next;
}

FairQueue::Client& FairQueue::ClientOf(const Sequence& popped) {
  return levels_.at(popped.priority()).clients.at(popped.client());
}

void FairQueue::Forget(Levels::iterator level) {
  const auto idle = [](const auto& client) { return client.second.is_idle(); };
  auto& clients = level->second.clients;
  if (std::all_of(clients.begin(), clients.end(), idle)) {
    levels_.erase(level);  // nobody is left to be compared with
  } else {
    std::erase_if(clients, [&](const auto& client) {
      return idle(client) && client.second.served <= level->second.floor;
    });
  }
}

}  // namespace pregate
