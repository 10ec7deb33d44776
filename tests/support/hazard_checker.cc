#include "tests/support/hazard_checker.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pregate {
namespace {

uintptr_t AddressOf(const std::byte* data) { return reinterpret_cast<uintptr_t>(data); }

MemoryRange RangeOf(uintptr_t begin, uintptr_t end) {
  return {.data = reinterpret_cast<const std::byte*>(begin),  // NOLINT(performance-no-int-to-ptr)
          .bytes = end - begin};
}

}  // namespace

std::string Hazard::ToString() const {
  const std::string bytes =
      absl::StrCat(range.bytes, " bytes at 0x", absl::Hex(AddressOf(range.data)));
  switch (kind) {
    case Kind::kReadOfWrite:
      return absl::StrCat(
          later, " reads ", bytes, " that ", earlier, " writes; nothing orders the two");
    case Kind::kWriteOfRead:
      return absl::StrCat(
          later, " writes ", bytes, " that ", earlier, " reads; nothing orders the two");
    case Kind::kWriteOfWrite:
      return absl::StrCat(
          later, " writes ", bytes, " that ", earlier, " writes; nothing orders the two");
    case Kind::kMissingMemory:
      break;
  }
  return absl::StrCat(later, " uses ", bytes, " that are not committed");
}

HazardChecker::Actor HazardChecker::AddStream() {
  MutexLock lock(mutex_);
  clocks_.emplace_back(clocks_.size() + 1);
  return clocks_.size() - 1;
}

void HazardChecker::OnOperation(Actor stream,
                                absl::string_view name,
                                const std::vector<MemoryRange>& reads,
                                const std::vector<MemoryRange>& writes) {
  MutexLock lock(mutex_);
  Join(stream, clocks_[kHost]);
  const Access access = Begin(stream, name);
  for (const MemoryRange& range : reads) Read(access, range);
  for (const MemoryRange& range : writes) Write(access, range);
}

HazardChecker::Clock HazardChecker::OnRecord(Actor stream) {
  MutexLock lock(mutex_);
  Join(stream, clocks_[kHost]);
  return clocks_[stream];
}

void HazardChecker::OnWait(Actor stream, const Clock& event) {
  MutexLock lock(mutex_);
  Join(stream, event);
}

void HazardChecker::OnHostSees(const Clock& event) {
  MutexLock lock(mutex_);
  Join(kHost, event);
}

void HazardChecker::OnHostRead(MemoryRange range, absl::string_view name) {
  MutexLock lock(mutex_);
  Read(Begin(kHost, name), range);
}

void HazardChecker::OnHostWrite(MemoryRange range, absl::string_view name) {
  MutexLock lock(mutex_);
  Write(Begin(kHost, name), range);
}

void HazardChecker::OnReserve(MemoryRange range) {
  MutexLock lock(mutex_);
  for (const auto& [piece, bytes] : PiecesOf(range)) bytes->is_missing = true;
}

void HazardChecker::OnCommit(MemoryRange range) {
  MutexLock lock(mutex_);
  for (const auto& [piece, bytes] : PiecesOf(range)) bytes->is_missing = false;
}

void HazardChecker::OnDecommit(MemoryRange range, absl::string_view name) {
  MutexLock lock(mutex_);
  Decommit(range, name);
}

void HazardChecker::OnRelease(MemoryRange range, absl::string_view name) {
  MutexLock lock(mutex_);
  Decommit(range, name);
  // It is in pieces of its own since.
  bytes_.erase(bytes_.lower_bound(AddressOf(range.data)),
               bytes_.lower_bound(AddressOf(range.data) + range.bytes));
}

std::vector<Hazard> HazardChecker::hazards() const {
  MutexLock lock(mutex_);
  return hazards_;
}

absl::Status HazardChecker::status() const {
  MutexLock lock(mutex_);
  if (hazards_.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("hazards: ", hazards_.size(), ", the first: ", hazards_.front().ToString()));
}

HazardChecker::Access HazardChecker::Begin(Actor actor, absl::string_view name) {
  const uint64_t count = ++clocks_[actor][actor];
  return {.actor = actor, .count = count, .name = std::make_shared<const std::string>(name)};
}

void HazardChecker::Join(Actor actor, const Clock& other) {
  Clock& clock = clocks_[actor];
  clock.resize(std::max(clock.size(), other.size()));
  for (size_t i = 0; i < other.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

bool HazardChecker::IsBehind(Actor actor, const Access& access) const {
  const Clock& clock = clocks_[actor];
  return access.actor < clock.size() && clock[access.actor] >= access.count;
}

void HazardChecker::Read(const Access& access, MemoryRange range) {
  for (const auto& [piece, bytes] : PiecesOf(range)) {
    if (bytes->is_missing) Add({Hazard::Kind::kMissingMemory, "", *access.name, piece});
    if (bytes->write.has_value() && !IsBehind(access.actor, *bytes->write)) {
      Add({Hazard::Kind::kReadOfWrite, *bytes->write->name, *access.name, piece});
    }
    std::vector<Access>& reads = bytes->reads;
    const auto last = std::find_if(
        reads.begin(), reads.end(), [&](const Access& read) { return read.actor == access.actor; });
    if (last != reads.end()) {
      *last = access;  // whoever is behind this one is behind that one too
    } else {
      reads.push_back(access);
    }
  }
}

void HazardChecker::Write(const Access& access, MemoryRange range) {
  for (const auto& [piece, bytes] : PiecesOf(range)) {
    if (bytes->is_missing) Add({Hazard::Kind::kMissingMemory, "", *access.name, piece});
    if (bytes->write.has_value() && !IsBehind(access.actor, *bytes->write)) {
      Add({Hazard::Kind::kWriteOfWrite, *bytes->write->name, *access.name, piece});
    }
    for (const Access& read : bytes->reads) {
      if (IsBehind(access.actor, read)) continue;
      Add({Hazard::Kind::kWriteOfRead, *read.name, *access.name, piece});
    }
    bytes->reads.clear();
    bytes->write = access;
  }
}

void HazardChecker::Decommit(MemoryRange range, absl::string_view name) {
  const Access access = Begin(kHost, name);
  for (const auto& [piece, bytes] : PiecesOf(range)) {
    if (!bytes->is_missing) Write(access, piece);
    bytes->is_missing = true;
  }
}

void HazardChecker::Add(Hazard hazard) {
  for (Hazard& known : hazards_) {
    if (known.kind == hazard.kind && known.earlier == hazard.earlier &&
        known.later == hazard.later && known.range.data + known.range.bytes == hazard.range.data) {
      known.range.bytes += hazard.range.bytes;
      return;
    }
  }
  hazards_.push_back(std::move(hazard));
}

void HazardChecker::SplitAt(uintptr_t address) {
  auto behind = bytes_.upper_bound(address);
  if (behind == bytes_.begin()) return;
  const auto piece = std::prev(behind);
  if (piece->first == address || piece->second.end <= address) return;
  Bytes rest = piece->second;
  piece->second.end = address;
  bytes_.emplace_hint(behind, address, std::move(rest));
}

std::vector<std::pair<MemoryRange, HazardChecker::Bytes*>> HazardChecker::PiecesOf(
    MemoryRange range) {
  std::vector<std::pair<MemoryRange, Bytes*>> pieces;
  uintptr_t at = AddressOf(range.data);
  const uintptr_t end = at + range.bytes;
  SplitAt(at);
  SplitAt(end);
  for (auto piece = bytes_.lower_bound(at); at < end; ++piece) {
    if (piece == bytes_.end() || piece->first > at) {
      // Nothing is known of these yet.
      Bytes fresh;
      fresh.end = piece == bytes_.end() ? end : std::min(end, piece->first);
      piece = bytes_.emplace_hint(piece, at, std::move(fresh));
    }
    pieces.emplace_back(RangeOf(at, piece->second.end), &piece->second);
    at = piece->second.end;
  }
  return pieces;
}

}  // namespace pregate
