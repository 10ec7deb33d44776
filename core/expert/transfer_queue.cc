#include "core/expert/transfer_queue.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace pregate {

void TransferQueue::Issue(const std::shared_ptr<Transfer>& transfer, size_t limit) {
  const absl::Span<const std::byte> rest =
      transfer->record.bytes().subspan(transfer->issued_bytes, limit);
  if (transfer->issued_bytes == 0) {
    for (const Event& use : transfer->after) stream_.Wait(use);
    transfer->begun = std::chrono::steady_clock::now();
  }
  stream_.CopyAsync(transfer->to + transfer->issued_bytes, rest.data(), rest.size());
  transfer->issued_bytes += rest.size();
  Piece piece = {.event = stream_.Record(),
                 .transfer = transfer,
                 .is_last = transfer->is_issued(),
                 .counts = !transfer->is_urgent};
  if (piece.is_last) transfer->ready = piece.event;
  if (piece.counts) ++queued_pieces_;
  on_stream_.push_back(std::move(piece));
}

void TransferQueue::Add(std::shared_ptr<Transfer> transfer) {
  if (transfer->is_urgent) {
    Issue(transfer, absl::Span<const std::byte>::npos);
  } else {
    waiting_.push_back(std::move(transfer));
    Pump();
  }
}

void TransferQueue::Hurry(const std::shared_ptr<Transfer>& transfer) {
  const auto place = std::find(waiting_.begin(), waiting_.end(), transfer);
  if (place == waiting_.end()) return;
  waiting_.erase(place);
  transfer->is_urgent = true;
  Issue(transfer, absl::Span<const std::byte>::npos);
}

bool TransferQueue::Cancel(const std::shared_ptr<Transfer>& transfer) {
  if (transfer->issued_bytes > 0) return false;
  const auto place = std::find(waiting_.begin(), waiting_.end(), transfer);
  PREGATE_CHECK(place != waiting_.end());
  waiting_.erase(place);
  return true;
}

void TransferQueue::Pump() {
  while (!waiting_.empty() && queued_pieces_ < kQueuedPieces) {
    const std::shared_ptr<Transfer> transfer = waiting_.front();
    Issue(transfer, kPieceBytes);
    if (transfer->is_issued()) waiting_.pop_front();
  }
}

std::optional<TransferQueue::Piece> TransferQueue::Oldest() const {
  if (on_stream_.empty()) return std::nullopt;
  return on_stream_.front();
}

void TransferQueue::Retire() {
  PREGATE_CHECK(!on_stream_.empty());
  if (on_stream_.front().counts) --queued_pieces_;
  on_stream_.pop_front();
}

}  // namespace pregate
