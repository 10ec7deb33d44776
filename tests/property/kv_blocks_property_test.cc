// BlockPool against a model: whatever is reserved and given back, in whatever order, no block is
// lost and none has two holders.
#include <set>
#include <utility>
#include <vector>

#include "core/engine/kv_blocks.h"
#include "gtest/gtest.h"
#include "rapidcheck.h"
#include "rapidcheck/gtest.h"

namespace pregate {
namespace {

// Blocks that the leases hold; each once.
std::set<uint32_t> Held(const std::vector<BlockLease>& leases) {
  std::set<uint32_t> held;
  for (const BlockLease& lease : leases) {
    for (const uint32_t block : lease.blocks()) RC_ASSERT(held.insert(block).second);
  }
  return held;
}

RC_GTEST_PROP(BlockPoolProperty, LosesNoBlockAndLeasesNoneTwice, ()) {
  const auto num_blocks = *rc::gen::inRange<uint32_t>(0, 40);
  BlockPool pool(num_blocks);
  std::vector<BlockLease> leases;
  const auto num_actions = *rc::gen::inRange(1, 60);
  for (int i = 0; i < num_actions; ++i) {
    if (leases.empty() || *rc::gen::inRange(0, 2) == 0) {
      const auto count = *rc::gen::inRange<uint32_t>(0, num_blocks + 2);
      const uint32_t free = num_blocks - pool.num_used();
      std::optional<BlockLease> lease = pool.Reserve(count);
      RC_ASSERT(lease.has_value() == (count <= free));
      if (lease.has_value()) {
        RC_ASSERT(lease->blocks().size() == count);
        leases.push_back(*std::move(lease));
      }
    } else {
      const auto index = *rc::gen::inRange<size_t>(0, leases.size());
      // Half of them by assignment, which has to give back what was held before.
      std::swap(leases[index], leases.back());
      if (leases.size() >= 2 && *rc::gen::inRange(0, 2) == 0) {
        leases[leases.size() - 2] = std::move(leases.back());
      }
      leases.pop_back();
    }
    const std::set<uint32_t> held = Held(leases);
    RC_ASSERT(pool.num_used() == held.size());
    RC_ASSERT((held.empty() || *held.rbegin() < num_blocks));
  }
  leases.clear();
  RC_ASSERT(pool.num_used() == 0u);
  RC_ASSERT(pool.Reserve(num_blocks).has_value());
}

}  // namespace
}  // namespace pregate
