// Who holds which block of the KV cache. The blocks' contents are the runner's.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace pregate {

class BlockPool;

// Blocks that one sequence holds; given back when the lease is destroyed or assigned to. Move-only.
class BlockLease {
 public:
  BlockLease() = default;  // of no blocks
  BlockLease(BlockLease&& other) noexcept;
  BlockLease& operator=(BlockLease&& other) noexcept;
  ~BlockLease();

  absl::Span<const uint32_t> blocks() const { return blocks_; }

 private:
  friend class BlockPool;
  BlockLease(BlockPool& pool, std::vector<uint32_t> blocks);
  void GiveBack();

  BlockPool* pool_ = nullptr;
  std::vector<uint32_t> blocks_;
};

// The blocks 0 … num_blocks − 1, each free or in exactly one lease. Outlives its leases. Not
// thread-safe.
class BlockPool {
 public:
  explicit BlockPool(uint32_t num_blocks);
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // All `count` blocks or, when fewer are free, none.
  std::optional<BlockLease> Reserve(uint32_t count);

  // Adds `count` blocks of this pool behind those of `lease`; false, and nothing is changed, when
  // fewer are free.
  bool Extend(BlockLease& lease, uint32_t count);

  uint32_t num_blocks() const { return num_blocks_; }
  uint32_t num_free() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t num_used() const { return num_blocks_ - num_free(); }

 private:
  friend class BlockLease;

  const uint32_t num_blocks_;
  std::vector<uint32_t> free_;  // the next to be given at the end
};

}  // namespace pregate
