// BlockPool against a model: whatever is reserved, extended, published and given back, in whatever
// order, no block is lost, none is written by one and read by another, and what is reused is what
// the sequence would have computed.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "core/engine/kv_blocks.h"
#include "gtest/gtest.h"
#include "rapidcheck.h"
#include "rapidcheck/gtest.h"

namespace pregate {
namespace {

using Tokens = std::vector<uint32_t>;

struct Holder {
  BlockLease lease;
  Tokens tokens;
  size_t computed = 0;
};

class Model {
 public:
  Model(uint32_t num_blocks, uint32_t block_size)
      : block_size_(block_size), pool_(num_blocks, block_size), slots_(num_blocks * block_size) {}

  void Reserve() {
    Holder holder;
    // Of few different tokens, so that many begin alike.
    const auto size = *rc::gen::inRange<size_t>(1, 20);
    holder.tokens = *rc::gen::container<Tokens>(size, rc::gen::inRange(1u, 3u));
    const auto spare = *rc::gen::inRange(0u, 3u);
    const uint32_t used = pool_.num_used();
    const uint32_t cached = pool_.num_cached();
    const uint32_t reusable = pool_.NumReusable(holder.tokens);
    std::optional<BlockLease> lease = pool_.Reserve(holder.tokens, spare);
    if (!lease.has_value()) {
      RC_ASSERT(pool_.num_used() == used);
      RC_ASSERT(pool_.num_cached() == cached);
      RC_ASSERT(BlocksFor(size) + spare > pool_.num_blocks() - used);
      return;
    }
    RC_ASSERT(pool_.num_used() + spare <= pool_.num_blocks());
    RC_ASSERT(lease->blocks().size() == BlocksFor(size));
    holder.lease = *std::move(lease);
    holder.computed = holder.lease.num_published() * size_t{block_size_};
    RC_ASSERT(holder.computed == reusable);
    RC_ASSERT(holder.computed < size);
    holders_.push_back(std::move(holder));
    CheckContents();
  }

  void Compute(size_t index) {
    Holder& holder = holders_[index];
    if (holder.computed == holder.tokens.size()) holder.tokens.push_back(*rc::gen::inRange(1u, 3u));
    const bool fits = pool_.Extend(holder.lease, static_cast<uint32_t>(holder.tokens.size()));
    RC_ASSERT((fits || pool_.num_used() == pool_.num_blocks()));
    if (!fits) return holder.tokens.pop_back();
    const auto end = *rc::gen::inRange(holder.computed, holder.tokens.size()) + 1;
    for (size_t p = holder.computed; p < end; ++p) {
      const uint32_t block = holder.lease.blocks()[p / block_size_];
      RC_ASSERT(NumHolders(block) == 1);
      slots_[block * block_size_ + p % block_size_] = holder.tokens[p];
    }
    holder.computed = end;
    pool_.Publish(holder.lease, absl::MakeConstSpan(holder.tokens).first(end));
    RC_ASSERT(holder.lease.num_published() == end / block_size_);
    CheckContents();
  }

  void GiveBack(size_t index) {
    // Half of them by assignment, which has to give back what was held before.
    std::swap(holders_[index], holders_.back());
    if (holders_.size() >= 2 && *rc::gen::arbitrary<bool>()) {
      holders_[holders_.size() - 2] = std::move(holders_.back());
    }
    holders_.pop_back();
    CheckContents();
  }

  void End() {
    holders_.clear();
    RC_ASSERT(pool_.num_used() == 0u);
    const Tokens all(pool_.num_blocks() * size_t{block_size_}, 9);
    RC_ASSERT(pool_.Reserve(all, 0).has_value());
    RC_ASSERT(pool_.num_cached() == 0u);
  }

  size_t num_holders() const { return holders_.size(); }

 private:
  size_t BlocksFor(size_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }

  int NumHolders(uint32_t block) const {
    int count = 0;
    for (const Holder& holder : holders_) {
      const auto blocks = holder.lease.blocks();
      count += static_cast<int>(std::count(blocks.begin(), blocks.end(), block));
    }
    return count;
  }

  void CheckContents() const {
    std::map<uint32_t, int> held;
    for (const Holder& holder : holders_) {
      for (const uint32_t block : holder.lease.blocks()) ++held[block];
      for (size_t p = 0; p < holder.computed; ++p) {
        const uint32_t block = holder.lease.blocks()[p / block_size_];
        RC_ASSERT(slots_[block * block_size_ + p % block_size_] == holder.tokens[p]);
      }
    }
    RC_ASSERT(pool_.num_used() == held.size());
    RC_ASSERT(pool_.num_used() + pool_.num_cached() <= pool_.num_blocks());
    RC_ASSERT((held.empty() || held.rbegin()->first < pool_.num_blocks()));
  }

  const uint32_t block_size_;
  BlockPool pool_;
  std::vector<uint32_t> slots_;  // what was written
  std::vector<Holder> holders_;
};

RC_GTEST_PROP(BlockPoolProperty, GivesNobodyAWrongBlockAndLosesNone, ()) {
  Model model(*rc::gen::inRange(1u, 30u), *rc::gen::inRange(1u, 5u));
  const auto num_actions = *rc::gen::inRange(1, 80);
  for (int i = 0; i < num_actions; ++i) {
    if (model.num_holders() == 0 || *rc::gen::inRange(0, 4) == 0) {
      model.Reserve();
      continue;
    }
    const auto index = *rc::gen::inRange<size_t>(0, model.num_holders());
    if (*rc::gen::inRange(0, 4) == 0) {
      model.GiveBack(index);
    } else {
      model.Compute(index);
    }
  }
  model.End();
}

}  // namespace
}  // namespace pregate
