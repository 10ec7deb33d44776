#include "core/device/cpu_backend.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <fstream>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/clock.h"
#include "core/base/mutex.h"
#include "core/base/thread.h"

namespace pregate {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

absl::StatusOr<double> ParseSeconds(absl::string_view text) {
  const std::pair<absl::string_view, double> units[] = {
      {"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}};
  for (const auto& [unit, seconds] : units) {
    absl::string_view number = text;
    double value = 0;
    if (absl::ConsumeSuffix(&number, unit) && absl::SimpleAtod(number, &value) && value >= 0) {
      return value * seconds;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not a time like 10us (ns, us, ms or s)"));
}

// Of the machine, in bytes.
uint64_t AvailableBytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string name, unit; file >> name;) {
    uint64_t kibibytes = 0;
    file >> kibibytes;
    if (name == "MemAvailable:") return kibibytes << 10;
    std::getline(file, unit);
  }
  return static_cast<uint64_t>(sysconf(_SC_AVPHYS_PAGES)) *
         static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

void Unmap(std::byte* data, size_t size) { PREGATE_CHECK(munmap(data, size) == 0); }

// A point that a stream's worker reaches.
class CpuEvent final : public Event::State {
 public:
  bool Ready() const override {
    MutexLock lock(mutex_);
    return is_ready_;
  }
  absl::Status BlockUntilReady() const override {
    MutexLock lock(mutex_);
    while (!is_ready_) passed_.Wait(mutex_);
    return absl::OkStatus();
  }
  void Pass() {
    MutexLock lock(mutex_);
    is_ready_ = true;
    passed_.NotifyAll();
  }

 private:
  mutable Mutex mutex_;
  mutable CondVar passed_;
  bool is_ready_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

absl::StatusOr<SimulatedLink> ParseSimulatedLink(absl::string_view text) {
  const auto refuse = [text](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(
        "simulated_link: '", text, "' is not BANDWIDTH,LATENCY like 25GiB/s,10us: ", why));
  };
  const size_t comma = text.find(',');
  if (comma == absl::string_view::npos) return refuse("there is no comma");
  absl::string_view bandwidth = text.substr(0, comma);
  if (!absl::ConsumeSuffix(&bandwidth, "/s")) return refuse("the bandwidth does not end with /s");
  const absl::StatusOr<uint64_t> bytes = ParseBytes(bandwidth);
  if (!bytes.ok()) return refuse(bytes.status().message());
  if (*bytes == 0) return refuse("the bandwidth is 0");
  const absl::StatusOr<double> latency = ParseSeconds(text.substr(comma + 1));
  if (!latency.ok()) return refuse(latency.status().message());
  return SimulatedLink{.bytes_per_second = static_cast<double>(*bytes),
                       .latency_seconds = *latency};
}

// One copy at a time. A copy's end is counted from the end of the one before it, or from its start
// when the link was idle: the pauses do not add up to more than the pace, however late a thread
// wakes.
class CpuBackend::Link {
 public:
  explicit Link(SimulatedLink pace) : pace_(pace) {}

  void Copy(std::byte* to, const std::byte* from, size_t bytes) {
    const Duration needed =
        FromSeconds(pace_.latency_seconds + static_cast<double>(bytes) / pace_.bytes_per_second);
    TimePoint end;
    {
      MutexLock lock(mutex_);
      free_at_ = std::max(free_at_, std::chrono::steady_clock::now()) + needed;
      end = free_at_;
    }
    std::memcpy(to, from, bytes);
    // A sleeping thread wakes 50 to 100 us late, and records may take less than that in all: the
    // last of the way is spent looking at the clock.
    constexpr auto kWakeUp = std::chrono::microseconds(150);
    if (end - std::chrono::steady_clock::now() > kWakeUp) {
      std::this_thread::sleep_until(end - kWakeUp);
    }
    while (std::chrono::steady_clock::now() < end) std::this_thread::yield();
  }

 private:
  const SimulatedLink pace_;
  Mutex mutex_;
  TimePoint free_at_ ABSL_GUARDED_BY(mutex_);
};

namespace {

struct CopyWork {
  std::byte* to;
  const std::byte* from;
  size_t bytes;
};
using Work = std::variant<CopyWork, Event, std::shared_ptr<CpuEvent>>;  // copy, wait for, pass

}  // namespace

// A stream whose work a thread of its own does.
class CpuBackend::WorkerStream final : public Stream {
 public:
  WorkerStream(const std::string& name, Link* link)
      : link_(link), worker_(name, [this] { Run(); }) {}
  ~WorkerStream() override {
    MutexLock lock(mutex_);
    is_closing_ = true;
    has_work_.NotifyAll();
    // worker_ is the last member: it is joined, with all work done, before anything else goes.
  }

  void CopyAsync(std::byte* to, const std::byte* from, size_t bytes) override {
    Give(CopyWork{.to = to, .from = from, .bytes = bytes});
  }
  Event Record() override {
    auto event = std::make_shared<CpuEvent>();
    Give(event);
    return Event(std::move(event));
  }
  void Wait(const Event& event) override {
    if (!event.Ready()) Give(event);
  }
  absl::Status Synchronize() override { return Record().BlockUntilReady(); }

 private:
  void Give(Work work) {
    MutexLock lock(mutex_);
    work_.push_back(std::move(work));
    has_work_.NotifyAll();
  }

  void Run() {
    for (;;) {
      Work work;
      {
        MutexLock lock(mutex_);
        while (work_.empty() && !is_closing_) has_work_.Wait(mutex_);
        if (work_.empty()) return;
        work = std::move(work_.front());
        work_.pop_front();
      }
      if (const auto* copy = std::get_if<CopyWork>(&work)) {
        if (link_ != nullptr) {
          link_->Copy(copy->to, copy->from, copy->bytes);
        } else {
          std::memcpy(copy->to, copy->from, copy->bytes);
        }
      } else if (const auto* event = std::get_if<Event>(&work)) {
        // The error of another stream's work is for those who wait for that work on the host.
        event->BlockUntilReady().IgnoreError();
      } else {
        std::get<std::shared_ptr<CpuEvent>>(work)->Pass();
      }
    }
  }

  Link* const link_;  // null: copies are not paced
  Mutex mutex_;
  CondVar has_work_;
  std::deque<Work> work_ ABSL_GUARDED_BY(mutex_);
  bool is_closing_ ABSL_GUARDED_BY(mutex_) = false;
  Thread worker_;
};

CpuBackend::CpuBackend(std::optional<SimulatedLink> link)
    : link_(link.has_value() ? std::make_unique<Link>(*link) : nullptr) {}

CpuBackend::~CpuBackend() = default;

absl::StatusOr<Buffer> CpuBackend::Allocate(MemoryKind kind, size_t bytes) {
  PREGATE_CHECK(bytes > 0);
  const uint64_t available = AvailableBytes();
  void* data = MAP_FAILED;
  if (bytes <= available) {
    data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (data == MAP_FAILED) return NotEnoughMemory(kind, bytes, available);
  // Fewer misses in the TLB; a kernel without huge pages ignores it.
  if (bytes >= kHugePage) madvise(data, bytes, MADV_HUGEPAGE);
  return Buffer(static_cast<std::byte*>(data), bytes, kind, Unmap);
}

absl::StatusOr<Buffer> CpuBackend::Reserve(size_t bytes) {
  PREGATE_CHECK(bytes > 0);
  // A span of 2 MiB units has whole huge pages only where it begins at such a unit.
  const size_t padded = RoundUp(bytes, commit_bytes()) + commit_bytes();
  void* const data =
      mmap(nullptr, padded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no addresses for ", FormatBytes(bytes), ": ", std::strerror(errno)));
  }
  auto* const begin = static_cast<std::byte*>(data);
  const size_t skipped = RoundUp(reinterpret_cast<uintptr_t>(begin), commit_bytes()) -
                         reinterpret_cast<uintptr_t>(begin);
  return Buffer(begin + skipped,
                padded - commit_bytes(),
                MemoryKind::kDevice,
                [begin, padded](std::byte*, size_t) { Unmap(begin, padded); });
}

absl::Status CpuBackend::Commit(const Buffer& reserved, size_t offset, size_t bytes) {
  PREGATE_CHECK(offset % commit_bytes() == 0 && bytes % commit_bytes() == 0);
  PREGATE_CHECK(offset + bytes <= reserved.size());
  const uint64_t available = AvailableBytes();
  if (bytes > available || mprotect(reserved.data() + offset, bytes, PROT_READ | PROT_WRITE) != 0) {
    return NotEnoughMemory(MemoryKind::kDevice, bytes, available);
  }
  madvise(reserved.data() + offset, bytes, MADV_HUGEPAGE);
  return absl::OkStatus();
}

absl::Status CpuBackend::Decommit(const Buffer& reserved, size_t offset, size_t bytes) {
  PREGATE_CHECK(offset % commit_bytes() == 0 && bytes % commit_bytes() == 0);
  PREGATE_CHECK(offset + bytes <= reserved.size());
  if (madvise(reserved.data() + offset, bytes, MADV_DONTNEED) != 0 ||
      mprotect(reserved.data() + offset, bytes, PROT_NONE) != 0) {
    return absl::InternalError(absl::StrCat(
        "cannot give back ", FormatBytes(bytes), " of memory: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Stream>> CpuBackend::CreateStream(const std::string& name) {
  return std::make_unique<WorkerStream>(name, link_.get());
}

MemoryInfo CpuBackend::memory() const {
  return {.total_bytes = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                         static_cast<uint64_t>(sysconf(_SC_PAGESIZE)),
          .free_bytes = AvailableBytes()};
}

void CallerStream::CopyAsync(std::byte* to, const std::byte* from, size_t bytes) {
  std::memcpy(to, from, bytes);
}

Event CallerStream::Record() { return Event(); }

void CallerStream::Wait(const Event& event) { status_.Update(event.BlockUntilReady()); }

absl::Status CallerStream::Synchronize() { return std::exchange(status_, absl::OkStatus()); }

}  // namespace pregate
