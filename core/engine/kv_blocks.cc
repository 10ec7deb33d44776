#include "core/engine/kv_blocks.h"

#include <utility>

#include "core/base/check.h"

namespace pregate {

BlockLease::BlockLease(BlockPool& pool, std::vector<uint32_t> blocks)
    : pool_(&pool), blocks_(std::move(blocks)) {}

BlockLease::BlockLease(BlockLease&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), blocks_(std::exchange(other.blocks_, {})) {}

BlockLease& BlockLease::operator=(BlockLease&& other) noexcept {
  if (this != &other) {
    GiveBack();
    pool_ = std::exchange(other.pool_, nullptr);
    blocks_ = std::exchange(other.blocks_, {});
  }
  return *this;
}

BlockLease::~BlockLease() { GiveBack(); }

void BlockLease::GiveBack() {
  if (pool_ != nullptr) {
    pool_->free_.insert(pool_->free_.end(), blocks_.rbegin(), blocks_.rend());
  }
}

BlockPool::BlockPool(uint32_t num_blocks) : num_blocks_(num_blocks) {
  free_.reserve(num_blocks);  // giving back never allocates
  for (uint32_t block = num_blocks; block > 0; --block) free_.push_back(block - 1);
}

BlockPool::~BlockPool() { PREGATE_CHECK(num_used() == 0, num_used(), " blocks are still leased"); }

std::optional<BlockLease> BlockPool::Reserve(uint32_t count) {
  BlockLease lease(*this, {});
  if (!Extend(lease, count)) return std::nullopt;
  return lease;
}

bool BlockPool::Extend(BlockLease& lease, uint32_t count) {
  PREGATE_CHECK(lease.pool_ == this);
  if (count > free_.size()) return false;
  lease.blocks_.insert(lease.blocks_.end(), free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - count);
  return true;
}

}  // namespace pregate
