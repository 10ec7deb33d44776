// What is to be copied into slots, and in which order the copy stream gets it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "core/base/clock.h"
#include "core/device/backend.h"
#include "core/expert/host_tier.h"

namespace pregate {

// A record on its way into a slot.
struct Transfer {
  uint32_t slot = 0;
  std::byte* to = nullptr;
  std::vector<Event> after;  // what still uses the slot
  HostRecord record;         // kept until the copy is done
  bool is_urgent = false;

  size_t issued_bytes = 0;  // given to the stream so far
  Event ready;              // behind the last piece, once all is issued
  TimePoint begun;          // when the stream could begin with it
  bool is_issued() const { return issued_bytes == record.bytes().size(); }
};

// The order of copies on one stream: what is needed goes at once and whole; what is only expected
// goes in pieces of at most 1 MiB, of which at most two wait on the stream, so that what is needed
// never waits for more. (There is one copy engine, and priorities of streams do not reorder
// copies.) Not thread-safe: its owner's lock guards it. Nothing here blocks.
class TransferQueue {
 public:
  static constexpr size_t kPieceBytes = size_t{1} << 20;
  static constexpr size_t kQueuedPieces = 2;

  explicit TransferQueue(Stream& stream) : stream_(stream) {}

  // Gives an urgent transfer to the stream, others behind those that wait.
  void Add(std::shared_ptr<Transfer> transfer);

  // What was expected is needed: its rest goes to the stream now.
  void Hurry(const std::shared_ptr<Transfer>& transfer);

  // True when nothing of it had been copied: it is forgotten. False: it goes on.
  bool Cancel(const std::shared_ptr<Transfer>& transfer);

  // Gives the stream what it may have of the waiting transfers.
  void Pump();

  // The oldest piece on the stream; nullopt when there is none. Wait for `event`, then call Retire.
  struct Piece {
    Event event;
    std::shared_ptr<Transfer> transfer;
    bool is_last = false;  // of its transfer
    bool counts = false;   // among the pieces that may wait on the stream
  };
  std::optional<Piece> Oldest() const;
  void Retire();

  uint64_t busy_transfers() const { return waiting_.size() + on_stream_.size(); }

 private:
  // The next piece of at most `limit` bytes.
  void Issue(const std::shared_ptr<Transfer>& transfer, size_t limit);

  Stream& stream_;
  std::deque<std::shared_ptr<Transfer>> waiting_;  // not urgent, with pieces that are not issued
  std::deque<Piece> on_stream_;                    // in the order of the stream
  size_t queued_pieces_ = 0;                       // of on_stream_ that are not urgent
};

}  // namespace pregate
