#include "tests/support/manual_backend.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

constexpr std::align_val_t kAlignment{4096};
constexpr int kGarbage = 0xAB;

std::byte* NewGarbage(size_t bytes) {
  auto* const data = static_cast<std::byte*>(::operator new(bytes, kAlignment));
  std::memset(data, kGarbage, bytes);
  return data;
}

}  // namespace

// A point of a stream, which lives until it has passed.
class ManualBackend::PendingEvent final : public Event::State {
 public:
  PendingEvent(ManualBackend& backend, ManualStream& stream, HazardChecker::Clock clock)
      : backend_(backend), stream_(stream), clock_(std::move(clock)) {}

  bool Ready() const override {
    MutexLock lock(backend_.mutex_);
    if (has_passed_) backend_.checker_.OnHostSees(clock_);
    return has_passed_;
  }
  absl::Status BlockUntilReady() const override {
    MutexLock lock(backend_.mutex_);
    while (!has_passed_ && backend_.waiting_ == Waiting::kBlocks) {
      ++num_sleeping_;
      ++backend_.num_sleeping_;
      backend_.changed_.Wait(backend_.mutex_);
      if (has_passed_) break;
      --num_sleeping_;
      --backend_.num_sleeping_;
    }
    if (!has_passed_) backend_.RunThrough(*this);
    backend_.checker_.OnHostSees(clock_);
    return status_;
  }

 private:
  friend class ManualBackend;
  friend class ManualStream;

  // Whoever sleeps for it is awake from here on.
  void Pass(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(backend_.mutex_) {
    status_ = status;
    has_passed_ = true;
    backend_.num_sleeping_ -= std::exchange(num_sleeping_, 0);
    backend_.changed_.NotifyAll();
  }

  ManualBackend& backend_;
  ManualStream& stream_;
  const HazardChecker::Clock clock_;
  bool has_passed_ ABSL_GUARDED_BY(backend_.mutex_) = false;
  mutable size_t num_sleeping_ ABSL_GUARDED_BY(backend_.mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(backend_.mutex_);
};

absl::Status ManualBackend::Take(MemoryKind kind, uint64_t bytes) {
  const uint64_t free = total_bytes_ - used_bytes_;
  if (bytes > free) return NotEnoughMemory(kind, bytes, free);
  used_bytes_ += bytes;
  return absl::OkStatus();
}

absl::StatusOr<Buffer> ManualBackend::Allocate(MemoryKind kind, size_t bytes) {
  PREGATE_CHECK(bytes > 0);
  {
    MutexLock lock(mutex_);
    PREGATE_RETURN_IF_ERROR(Take(kind, bytes));
  }
  return Buffer(NewGarbage(bytes), bytes, kind, [this](std::byte* data, size_t size) {
    MutexLock lock(mutex_);
    used_bytes_ -= size;
    checker_.OnRelease({.data = data, .bytes = size}, "the end of a buffer");
    ::operator delete(data, kAlignment);
  });
}

absl::StatusOr<Buffer> ManualBackend::Reserve(size_t bytes) {
  PREGATE_CHECK(bytes > 0);
  const size_t units = (bytes + commit_bytes() - 1) / commit_bytes();
  // It is all there, whatever is committed: a step that uses what is not is found, not fatal.
  auto* const begin = static_cast<std::byte*>(::operator new(units* commit_bytes(), kAlignment));
  MutexLock lock(mutex_);
  committed_[begin].resize(units);
  checker_.OnReserve({.data = begin, .bytes = units * commit_bytes()});
  return Buffer(
      begin, units * commit_bytes(), MemoryKind::kDevice, [this](std::byte* data, size_t size) {
        MutexLock lock(mutex_);
        const auto reservation = committed_.find(data);
        used_bytes_ -=
            commit_bytes() * static_cast<uint64_t>(std::count(
                                 reservation->second.begin(), reservation->second.end(), true));
        committed_.erase(reservation);
        checker_.OnRelease({.data = data, .bytes = size}, "the end of a reservation");
        ::operator delete(data, kAlignment);
      });
}

absl::Status ManualBackend::Commit(const Buffer& reserved, size_t offset, size_t bytes) {
  PREGATE_CHECK(offset % commit_bytes() == 0 && bytes % commit_bytes() == 0);
  PREGATE_CHECK(offset + bytes <= reserved.size());
  MutexLock lock(mutex_);
  std::vector<bool>& is_there = committed_.at(reserved.data());
  const auto begin = is_there.begin() + static_cast<ptrdiff_t>(offset / commit_bytes());
  const auto end = begin + static_cast<ptrdiff_t>(bytes / commit_bytes());
  const auto missing = static_cast<uint64_t>(std::count(begin, end, false));
  PREGATE_RETURN_IF_ERROR(Take(MemoryKind::kDevice, missing * commit_bytes()));
  for (auto unit = begin; unit != end; ++unit) {
    if (*unit) continue;
    *unit = true;
    std::memset(reserved.data() + commit_bytes() * static_cast<size_t>(unit - is_there.begin()),
                kGarbage,
                commit_bytes());
  }
  checker_.OnCommit({.data = reserved.data() + offset, .bytes = bytes});
  return absl::OkStatus();
}

absl::Status ManualBackend::Decommit(const Buffer& reserved, size_t offset, size_t bytes) {
  PREGATE_CHECK(offset % commit_bytes() == 0 && bytes % commit_bytes() == 0);
  PREGATE_CHECK(offset + bytes <= reserved.size());
  MutexLock lock(mutex_);
  std::vector<bool>& is_there = committed_.at(reserved.data());
  for (size_t unit = offset / commit_bytes(); unit < (offset + bytes) / commit_bytes(); ++unit) {
    if (!is_there[unit]) continue;
    is_there[unit] = false;
    used_bytes_ -= commit_bytes();
    std::memset(reserved.data() + unit * commit_bytes(), kGarbage, commit_bytes());
  }
  checker_.OnDecommit({.data = reserved.data() + offset, .bytes = bytes}, "a decommit");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Stream>> ManualBackend::CreateStream(const std::string& name) {
  return MakeStream(name);
}

MemoryInfo ManualBackend::memory() const {
  MutexLock lock(mutex_);
  return {.total_bytes = total_bytes_, .free_bytes = total_bytes_ - used_bytes_};
}

std::unique_ptr<ManualStream> ManualBackend::MakeStream(const std::string& name) {
  std::unique_ptr<ManualStream> stream(new ManualStream(*this, name));
  MutexLock lock(mutex_);
  streams_.push_back(stream.get());
  return stream;
}

ManualStream* ManualBackend::FindStream(const std::string& name) {
  MutexLock lock(mutex_);
  const auto stream = std::find_if(streams_.begin(), streams_.end(), [&](const ManualStream* each) {
    return each->name_ == name;
  });
  return stream == streams_.end() ? nullptr : *stream;
}

size_t ManualBackend::StepAll() {
  MutexLock lock(mutex_);
  size_t num_stepped = 0;
  for (ManualStream* stream : streams_) {
    if (!stream->CanStep()) continue;
    stream->RunOldest();
    ++num_stepped;
  }
  return num_stepped;
}

size_t ManualBackend::RunUntilIdle(uint64_t seed) {
  std::mt19937_64 random(seed);
  MutexLock lock(mutex_);
  std::vector<ManualStream*> able;
  for (size_t num_steps = 0;; ++num_steps) {
    able.clear();
    for (ManualStream* stream : streams_) {
      if (stream->CanStep()) able.push_back(stream);
    }
    if (able.empty()) return num_steps;
    able[random() % able.size()]->RunOldest();
  }
}

void ManualBackend::SetWaiting(Waiting waiting) {
  MutexLock lock(mutex_);
  waiting_ = waiting;
  changed_.NotifyAll();
}

size_t ManualBackend::num_sleeping() const {
  MutexLock lock(mutex_);
  return num_sleeping_;
}

void ManualBackend::RunThrough(const PendingEvent& event) {
  while (!event.has_passed_) {
    // An event is recorded before anybody can wait for it, so this chain ends.
    ManualStream* stream = &event.stream_;
    while (const PendingEvent* holder = stream->HeldBy()) stream = &holder->stream_;
    stream->RunOldest();
  }
}

ManualStream::ManualStream(ManualBackend& backend, std::string name)
    : backend_(backend), name_(std::move(name)), actor_(backend.checker_.AddStream()) {}

ManualStream::~ManualStream() {
  const Event end = Record();
  const auto& last = static_cast<const ManualBackend::PendingEvent&>(*end.state());
  MutexLock lock(backend_.mutex_);
  backend_.RunThrough(last);
  backend_.checker_.OnHostSees(last.clock_);
  std::vector<ManualStream*>& streams = backend_.streams_;
  streams.erase(std::find(streams.begin(), streams.end(), this));
}

std::string ManualStream::NextName(const std::string& what) {
  return absl::StrCat(what, " ", ++num_issued_, " of '", name_, "'");
}

void ManualStream::CopyAsync(std::byte* to, const std::byte* from, size_t bytes) {
  MutexLock lock(backend_.mutex_);
  backend_.checker_.OnOperation(
      actor_, NextName("copy"), {{.data = from, .bytes = bytes}}, {{.data = to, .bytes = bytes}});
  pending_.emplace_back(Copy{.to = to, .from = from, .bytes = bytes});
}

void ManualStream::Kernel(const std::string& name,
                          const std::vector<MemoryRange>& reads,
                          const std::vector<MemoryRange>& writes,
                          std::function<void()> body) {
  MutexLock lock(backend_.mutex_);
  backend_.checker_.OnOperation(actor_, NextName(name), reads, writes);
  pending_.emplace_back(std::move(body));
}

Event ManualStream::Record() {
  MutexLock lock(backend_.mutex_);
  auto event = std::make_shared<ManualBackend::PendingEvent>(
      backend_, *this, backend_.checker_.OnRecord(actor_));
  pending_.emplace_back(Pass{event});
  return Event(std::move(event));
}

void ManualStream::Wait(const Event& event) {
  if (event.state() == nullptr) return;
  const auto* const state = dynamic_cast<const ManualBackend::PendingEvent*>(event.state());
  PREGATE_CHECK(state != nullptr && &state->backend_ == &backend_, "an event of another backend");
  MutexLock lock(backend_.mutex_);
  backend_.checker_.OnWait(actor_, state->clock_);
  pending_.emplace_back(event);
}

absl::Status ManualStream::Synchronize() {
  absl::Status status = Record().BlockUntilReady();
  if (!status.ok()) {
    MutexLock lock(backend_.mutex_);
    error_ = absl::OkStatus();
  }
  return status;
}

bool ManualStream::Step() {
  MutexLock lock(backend_.mutex_);
  if (!CanStep()) return false;
  RunOldest();
  return true;
}

size_t ManualStream::pending() const {
  MutexLock lock(backend_.mutex_);
  return pending_.size();
}

void ManualStream::FailNextCopy(absl::Status status) {
  PREGATE_CHECK(!status.ok());
  MutexLock lock(backend_.mutex_);
  next_failure_ = std::move(status);
}

const ManualBackend::PendingEvent* ManualStream::HeldBy() const {
  if (pending_.empty()) return nullptr;
  const auto* const event = std::get_if<Event>(&pending_.front());
  if (event == nullptr) return nullptr;
  const auto* const state = static_cast<const ManualBackend::PendingEvent*>(event->state());
  return state->has_passed_ ? nullptr : state;
}

bool ManualStream::CanStep() const { return !pending_.empty() && HeldBy() == nullptr; }

void ManualStream::RunOldest() {
  const Operation operation = std::move(pending_.front());
  pending_.pop_front();
  if (const auto* copy = std::get_if<Copy>(&operation)) {
    if (next_failure_.has_value()) {
      std::memset(copy->to, kGarbage, copy->bytes);
      error_.Update(*std::exchange(next_failure_, std::nullopt));
    } else {
      std::memcpy(copy->to, copy->from, copy->bytes);
    }
  } else if (const auto* body = std::get_if<std::function<void()>>(&operation)) {
    if (*body) (*body)();
  } else if (const auto* point = std::get_if<Pass>(&operation)) {
    point->event->Pass(error_);
  }
}

}  // namespace pregate
