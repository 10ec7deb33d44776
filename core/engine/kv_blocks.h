// Who holds which block of the KV cache, and which blocks' keys and values may serve others. The
// contents are the runner's.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/hash/hash.h"
#include "absl/types/span.h"

namespace pregate {

class BlockPool;

// Blocks that one sequence holds, in order of position; given back when the lease is destroyed or
// assigned to. Move-only.
class BlockLease {
 public:
  BlockLease() = default;  // of no blocks
  BlockLease(BlockLease&& other) noexcept;
  BlockLease& operator=(BlockLease&& other) noexcept;
  ~BlockLease();

  absl::Span<const uint32_t> blocks() const { return blocks_; }
  // How many of the first blocks have keys and values that others may reuse.
  uint32_t num_published() const { return num_published_; }

 private:
  friend class BlockPool;
  explicit BlockLease(BlockPool& pool) : pool_(&pool) {}
  void GiveBack();

  BlockPool* pool_ = nullptr;
  std::vector<uint32_t> blocks_;
  uint32_t num_published_ = 0;
  uint64_t prefix_ = 0;  // BlockPool::Content::id of the last one of them
};

// The blocks 0 … num_blocks − 1, each held by one lease or, if its content was published, by any
// number. A block that nobody holds keeps its published content until another one is needed; of
// those the one that was held longest ago goes first, of one lease the later positions before the
// earlier. Outlives its leases. Not thread-safe.
class BlockPool {
 public:
  BlockPool(uint32_t num_blocks, uint32_t block_size);
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // Blocks for all the `tokens` of a sequence, at least one: for its beginning published ones, as
  // many as there are (the lease's num_published), but none with the last token, which has to be
  // computed in any case; others for the rest. Nothing, and nothing is changed, when fewer than
  // `spare` could be had afterwards.
  std::optional<BlockLease> Reserve(absl::Span<const uint32_t> tokens, uint32_t spare);
  // Adds blocks behind the lease's for this many tokens in all; false, and nothing is changed, when
  // there are not enough.
  bool Extend(BlockLease& lease, uint32_t num_tokens);
  // The keys and values of the sequence's first tokens have been computed, or were found: from now
  // on others may reuse the blocks that these fill.
  void Publish(BlockLease& lease, absl::Span<const uint32_t> computed);
  // Of `tokens`, those that Reserve would find computed.
  uint32_t NumReusable(absl::Span<const uint32_t> tokens) const;

  uint32_t num_blocks() const { return static_cast<uint32_t>(blocks_.size()); }
  uint32_t num_used() const { return static_cast<uint32_t>(used_.size()); }
  // That nobody holds, and whose content can be reused.
  uint32_t num_cached() const { return num_cached_; }

 private:
  friend class BlockLease;

  // What a block holds: its tokens, and those before them as the id of the content there. Ids are
  // never used again; so equal keys are equal prefixes, not only equal hashes.
  using Key = std::pair<uint64_t, std::vector<uint32_t>>;
  struct Content {
    uint32_t block = 0;
    uint64_t id = 0;
  };
  struct Block {
    std::list<uint32_t>::iterator place;  // in unused_ or used_
    uint32_t num_leases = 0;
    const Key* content = nullptr;  // in contents_
  };

  Key KeyOf(uint64_t prefix, absl::Span<const uint32_t> tokens, uint32_t index) const;
  // The contents of the first blocks that Reserve finds.
  std::vector<Content> Find(absl::Span<const uint32_t> tokens) const;
  uint32_t BlocksFor(size_t num_tokens) const;
  void Hold(uint32_t block);
  void Release(uint32_t block);

  const uint32_t block_size_;
  std::vector<Block> blocks_;
  std::list<uint32_t>
      unused_;  // the next to be given first: those without content, then the oldest
  std::list<uint32_t> used_;
  std::unordered_map<Key, Content, absl::Hash<Key>> contents_;
  uint64_t last_id_ = 0;
  uint32_t num_cached_ = 0;
};

}  // namespace pregate
