#include "core/engine/kv_blocks.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace pregate {

BlockLease::BlockLease(BlockLease&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      blocks_(std::exchange(other.blocks_, {})),
      num_published_(std::exchange(other.num_published_, 0)),
      prefix_(std::exchange(other.prefix_, 0)) {}

BlockLease& BlockLease::operator=(BlockLease&& other) noexcept {
  if (this != &other) {
    GiveBack();
    pool_ = std::exchange(other.pool_, nullptr);
    blocks_ = std::exchange(other.blocks_, {});
    num_published_ = std::exchange(other.num_published_, 0);
    prefix_ = std::exchange(other.prefix_, 0);
  }
  return *this;
}

BlockLease::~BlockLease() { GiveBack(); }

// The last first: of what stays cached, a block is of no use without those before it.
void BlockLease::GiveBack() {
  std::for_each(
      blocks_.rbegin(), blocks_.rend(), [this](uint32_t block) { pool_->Release(block); });
}

BlockPool::BlockPool(uint32_t num_blocks, uint32_t block_size)
    : block_size_(block_size), blocks_(num_blocks) {
  PREGATE_CHECK(block_size > 0);
  for (uint32_t block = 0; block < num_blocks; ++block) {
    blocks_[block].place = unused_.insert(unused_.end(), block);
  }
}

BlockPool::~BlockPool() { PREGATE_CHECK(num_used() == 0, num_used(), " blocks are still leased"); }

std::optional<BlockLease> BlockPool::Reserve(absl::Span<const uint32_t> tokens, uint32_t spare) {
  PREGATE_CHECK(!tokens.empty());
  const std::vector<Content> found = Find(tokens);
  const auto is_unused = [this](const Content& c) { return blocks_[c.block].num_leases == 0; };
  const auto taken = static_cast<uint32_t>(std::count_if(found.begin(), found.end(), is_unused)) +
                     BlocksFor(tokens.size()) - static_cast<uint32_t>(found.size());
  if (uint64_t{taken} + spare > unused_.size()) return std::nullopt;

  BlockLease lease(*this);
  for (const Content& content : found) {
    Hold(content.block);
    lease.blocks_.push_back(content.block);
    lease.prefix_ = content.id;
  }
  lease.num_published_ = static_cast<uint32_t>(found.size());
  PREGATE_CHECK(Extend(lease, static_cast<uint32_t>(tokens.size())));
  return lease;
}

bool BlockPool::Extend(BlockLease& lease, uint32_t num_tokens) {
  PREGATE_CHECK(lease.pool_ == this);
  const size_t wanted = BlocksFor(num_tokens);
  if (wanted > lease.blocks_.size() + unused_.size()) return false;
  while (lease.blocks_.size() < wanted) {
    const uint32_t block = unused_.front();
    Hold(block);
    if (const Key* content = std::exchange(blocks_[block].content, nullptr)) {
      contents_.erase(contents_.find(*content));
    }
    lease.blocks_.push_back(block);
  }
  return true;
}

void BlockPool::Publish(BlockLease& lease, absl::Span<const uint32_t> computed) {
  PREGATE_CHECK(lease.pool_ == this && computed.size() <= lease.blocks_.size() * block_size_);
  for (; (lease.num_published_ + 1) * size_t{block_size_} <= computed.size();
       ++lease.num_published_) {
    const uint32_t block = lease.blocks_[lease.num_published_];
    // When others have computed the same meanwhile, theirs stays the one that is found.
    const auto [content, is_new] =
        contents_.try_emplace(KeyOf(lease.prefix_, computed, lease.num_published_));
    if (is_new) {
      content->second = {.block = block, .id = ++last_id_};
      blocks_[block].content = &content->first;
    }
    lease.prefix_ = content->second.id;
  }
}

uint32_t BlockPool::NumReusable(absl::Span<const uint32_t> tokens) const {
  return static_cast<uint32_t>(Find(tokens).size()) * block_size_;
}

BlockPool::Key BlockPool::KeyOf(uint64_t prefix,
                                absl::Span<const uint32_t> tokens,
                                uint32_t index) const {
  const auto begin = tokens.begin() + static_cast<ptrdiff_t>(size_t{index} * block_size_);
  return {prefix, std::vector<uint32_t>(begin, begin + block_size_)};
}

std::vector<BlockPool::Content> BlockPool::Find(absl::Span<const uint32_t> tokens) const {
  std::vector<Content> found;
  uint64_t prefix = 0;
  const size_t most = (tokens.size() - 1) / block_size_;
  while (found.size() < most) {
    const auto content = contents_.find(KeyOf(prefix, tokens, static_cast<uint32_t>(found.size())));
    if (content == contents_.end()) break;
    found.push_back(content->second);
    prefix = content->second.id;
  }
  return found;
}

uint32_t BlockPool::BlocksFor(size_t num_tokens) const {
  return static_cast<uint32_t>((num_tokens + block_size_ - 1) / block_size_);
}

void BlockPool::Hold(uint32_t block) {
  Block& held = blocks_[block];
  if (held.num_leases++ > 0) return;
  used_.splice(used_.end(), unused_, held.place);
  if (held.content != nullptr) --num_cached_;
}

void BlockPool::Release(uint32_t block) {
  Block& released = blocks_[block];
  if (--released.num_leases > 0) return;
  const bool is_cached = released.content != nullptr;
  unused_.splice(is_cached ? unused_.end() : unused_.begin(), used_, released.place);
  if (is_cached) ++num_cached_;
}

}  // namespace pregate
