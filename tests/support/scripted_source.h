// Records that come when the test says so.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include "core/base/mutex.h"
#include "core/expert/host_tier.h"

namespace pregate {

// Every byte of an expert's record is 1 + its flat number. Answers at once unless it was told to
// hold. Thread-safe.
class ScriptedSource final : public RecordSource {
 public:
  ScriptedSource(uint32_t num_layers, uint32_t num_experts, uint64_t record_bytes) {
    header_.num_layers = num_layers;
    header_.num_experts = num_experts;
    header_.record_bytes = record_bytes;
    for (uint32_t i = 0; i < num_layers * num_experts; ++i) {
      records_.emplace_back(record_bytes, ByteOf(i));
    }
  }

  static std::byte ByteOf(uint32_t flat) { return static_cast<std::byte>(flat + 1); }

  const ExpertPackHeader& header() const override { return header_; }

  void Fetch(ExpertId id, bool /*is_urgent*/, Done done) override {
    {
      MutexLock lock(mutex_);
      ++num_fetches_;
      if (is_holding_) {
        held_.emplace_back(id, std::move(done));
        return;
      }
    }
    Answer(id, done, /*from_disk=*/false);
  }

  void VisitStats(StatsVisitor&) const override {}

  // Keeps what is asked for from now on waiting, as a disk would.
  void Hold() {
    MutexLock lock(mutex_);
    is_holding_ = true;
  }
  // Answers the oldest that waits; with `status` when that is not OK.
  void Release(absl::Status status = absl::OkStatus()) {
    std::pair<ExpertId, Done> waiting;
    {
      MutexLock lock(mutex_);
      waiting = std::move(held_.front());
      held_.pop_front();
    }
    if (status.ok()) {
      Answer(waiting.first, waiting.second, /*from_disk=*/true);
    } else {
      waiting.second(std::move(status));
    }
  }
  size_t num_held() const {
    MutexLock lock(mutex_);
    return held_.size();
  }
  size_t num_fetches() const {
    MutexLock lock(mutex_);
    return num_fetches_;
  }

 private:
  void Answer(ExpertId id, const Done& done, bool from_disk) {
    done(HostRecord(records_[id.Flat(header_.num_experts)], from_disk, nullptr));
  }

  ExpertPackHeader header_;
  std::vector<std::vector<std::byte>> records_;
  mutable Mutex mutex_;
  bool is_holding_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::pair<ExpertId, Done>> held_ ABSL_GUARDED_BY(mutex_);
  size_t num_fetches_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace pregate
