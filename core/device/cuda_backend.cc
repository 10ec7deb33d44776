#include "core/device/cuda_backend.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <atomic>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/mutex.h"
#include "core/base/status_macros.h"
#include "core/device/cpu_backend.h"
#include "core/device/cuda_stream.h"

namespace pregate {
namespace {

constexpr int kMinCapability = 86;   // what cmake/cuda.cmake ships code for
constexpr size_t kAlignment = 4096;  // Buffer's

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// OK, or INTERNAL that says which call failed and why. Takes the error back from the runtime, lest
// a later check of something else finds it.
absl::Status ToStatus(cudaError_t error, absl::string_view call) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();
  return absl::InternalError(
      absl::StrCat(call, ": ", cudaGetErrorName(error), " (", cudaGetErrorString(error), ")"));
}

// The driver's functions for mapping memory: the runtime has none of its own. Found at run time, so
// that the program links, and starts, where there is no driver.
struct Driver {
  decltype(&cuMemAddressReserve) address_reserve = nullptr;
  decltype(&cuMemAddressFree) address_free = nullptr;
  decltype(&cuMemCreate) create = nullptr;
  decltype(&cuMemRelease) release = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemSetAccess) set_access = nullptr;
  decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
  decltype(&cuGetErrorString) error_string = nullptr;

  absl::Status Status(CUresult result, absl::string_view call) const {
    if (result == CUDA_SUCCESS) return absl::OkStatus();
    const char* text = nullptr;
    if (error_string(result, &text) != CUDA_SUCCESS) text = "an error without a name";
    return absl::InternalError(absl::StrCat(call, ": ", text));
  }
};

template <typename Function>
absl::Status Find(const char* name, Function& function) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  PREGATE_RETURN_IF_ERROR(ToStatus(
      cudaGetDriverEntryPointByVersion(name, &entry, CUDA_VERSION, cudaEnableDefault, &found),
      name));
  if (found != cudaDriverEntryPointSuccess) {
    return absl::FailedPreconditionError(absl::StrCat("the NVIDIA driver has no ", name));
  }
  function = reinterpret_cast<Function>(entry);
  return absl::OkStatus();
}

absl::StatusOr<Driver> FindDriver() {
  Driver driver;
  PREGATE_RETURN_IF_ERROR(Find("cuMemAddressReserve", driver.address_reserve));
  PREGATE_RETURN_IF_ERROR(Find("cuMemAddressFree", driver.address_free));
  PREGATE_RETURN_IF_ERROR(Find("cuMemCreate", driver.create));
  PREGATE_RETURN_IF_ERROR(Find("cuMemRelease", driver.release));
  PREGATE_RETURN_IF_ERROR(Find("cuMemMap", driver.map));
  PREGATE_RETURN_IF_ERROR(Find("cuMemUnmap", driver.unmap));
  PREGATE_RETURN_IF_ERROR(Find("cuMemSetAccess", driver.set_access));
  PREGATE_RETURN_IF_ERROR(Find("cuMemGetAllocationGranularity", driver.granularity));
  PREGATE_RETURN_IF_ERROR(Find("cuGetErrorString", driver.error_string));
  return driver;
}

// CUDA's events without timing, used again and again: making one takes longer than recording it.
class EventPool {
 public:
  EventPool() = default;
  EventPool(const EventPool&) = delete;
  EventPool& operator=(const EventPool&) = delete;
  ~EventPool() {
    for (cudaEvent_t event : free_) cudaEventDestroy(event);
  }

  absl::StatusOr<cudaEvent_t> Take() {
    {
      MutexLock lock(mutex_);
      if (!free_.empty()) {
        const cudaEvent_t event = free_.back();
        free_.pop_back();
        return event;
      }
    }
    cudaEvent_t event = nullptr;
    PREGATE_RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                                     "cudaEventCreateWithFlags"));
    return event;
  }
  void Give(cudaEvent_t event) {
    MutexLock lock(mutex_);
    free_.push_back(event);
  }

 private:
  Mutex mutex_;
  std::vector<cudaEvent_t> free_ ABSL_GUARDED_BY(mutex_);
};

class CudaEvent final : public Event::State {
 public:
  // `status`: of the work before it, as far as it is known. Takes `event`, which has been recorded
  // unless that failed.
  CudaEvent(EventPool& pool, cudaEvent_t event, absl::Status status)
      : pool_(pool), event_(event), status_(std::move(status)) {}
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  ~CudaEvent() override {
    if (event_ != nullptr) pool_.Give(event_);
  }

  bool Ready() const override {
    if (event_ == nullptr || has_passed_.load(std::memory_order_acquire)) return true;
    if (cudaEventQuery(event_) == cudaErrorNotReady) return false;
    has_passed_.store(true, std::memory_order_release);
    return true;
  }
  absl::Status BlockUntilReady() const override {
    if (event_ == nullptr) return status_;
    const absl::Status passed = ToStatus(cudaEventSynchronize(event_), "cudaEventSynchronize");
    return status_.ok() ? passed : status_;
  }

  cudaEvent_t event() const { return event_; }

 private:
  EventPool& pool_;
  const cudaEvent_t event_;  // null when it could not be recorded
  const absl::Status status_;
  mutable std::atomic<bool> has_passed_ = false;
};

class CudaStream final : public Stream {
 public:
  // Takes `stream`.
  CudaStream(EventPool& events, cudaStream_t stream) : events_(events), stream_(stream) {}
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  ~CudaStream() override {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }

  void CopyAsync(std::byte* to, const std::byte* from, size_t bytes) override {
    Note(ToStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "cudaMemcpyAsync"));
  }

  Event Record() override {
    absl::StatusOr<cudaEvent_t> event = events_.Take();
    if (event.ok()) {
      const absl::Status recorded = ToStatus(cudaEventRecord(*event, stream_), "cudaEventRecord");
      if (recorded.ok()) {
        return Event(std::make_shared<const CudaEvent>(events_, *event, status()));
      }
      events_.Give(*event);
      event = recorded;
    }
    Note(event.status());
    return Event(std::make_shared<const CudaEvent>(events_, nullptr, status()));
  }

  void Wait(const Event& event) override {
    if (event.Ready()) return;
    const auto* const other = dynamic_cast<const CudaEvent*>(event.state());
    PREGATE_CHECK(other != nullptr);  // of this backend, says the contract
    // Waits for what was recorded last, so that the event may be used again at once.
    Note(ToStatus(cudaStreamWaitEvent(stream_, other->event()), "cudaStreamWaitEvent"));
  }

  absl::Status Synchronize() override {
    Note(ToStatus(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"));
    MutexLock lock(mutex_);
    return std::exchange(status_, absl::OkStatus());
  }

  cudaStream_t stream() const { return stream_; }

 private:
  void Note(const absl::Status& status) {
    if (status.ok()) return;
    MutexLock lock(mutex_);
    status_.Update(status);
  }
  absl::Status status() const {
    MutexLock lock(mutex_);
    return status_;
  }

  EventPool& events_;
  const cudaStream_t stream_;
  mutable Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);  // the first error that Synchronize has not told
};

// Addresses, and the memory behind some of them.
class Reservation {
 public:
  using Chunk = CUmemGenericAllocationHandle;  // 0 is none

  Reservation(const Driver& driver, int ordinal, CUdeviceptr begin, size_t bytes)
      : driver_(driver), begin_(begin), bytes_(bytes), chunks_(bytes / Backend::commit_bytes()) {
    properties_.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties_.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties_.location.id = ordinal;
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;
  ~Reservation() {
    for (size_t i = 0; i < chunks_.size(); ++i) Unmap(i).IgnoreError();
    driver_.address_free(begin_, bytes_);
  }

  // Chunks [first, end).
  absl::Status Commit(size_t first, size_t end, const MemoryInfo& memory) {
    std::vector<size_t> added;
    uint64_t missing = 0;
    for (size_t i = first; i < end; ++i) missing += chunks_[i] == 0 ? Backend::commit_bytes() : 0;
    absl::Status status = missing <= memory.free_bytes
                              ? absl::OkStatus()
                              : NotEnoughMemory(MemoryKind::kDevice, missing, memory.free_bytes);
    for (size_t i = first; i < end && status.ok(); ++i) {
      if (chunks_[i] != 0) continue;
      status = Map(i, missing, memory);
      if (status.ok()) added.push_back(i);
    }
    if (status.ok()) status = Allow(first, end);
    if (!status.ok()) {
      for (const size_t i : added) Unmap(i).IgnoreError();
    }
    return status;
  }

  absl::Status Decommit(size_t first, size_t end) {
    absl::Status status;
    for (size_t i = first; i < end; ++i) status.Update(Unmap(i));
    return status;
  }

 private:
  static constexpr size_t kBytes = Backend::commit_bytes();

  absl::Status Map(size_t index, uint64_t wanted, const MemoryInfo& memory) {
    Chunk chunk = 0;
    const CUresult created = driver_.create(&chunk, kBytes, &properties_, 0);
    if (created == CUDA_ERROR_OUT_OF_MEMORY) {
      return NotEnoughMemory(MemoryKind::kDevice, wanted, memory.free_bytes);
    }
    PREGATE_RETURN_IF_ERROR(driver_.Status(created, "cuMemCreate"));
    absl::Status mapped =
        driver_.Status(driver_.map(begin_ + index * kBytes, kBytes, 0, chunk, 0), "cuMemMap");
    if (!mapped.ok()) {
      driver_.release(chunk);
      return mapped;
    }
    chunks_[index] = chunk;
    return absl::OkStatus();
  }

  absl::Status Allow(size_t first, size_t end) {
    CUmemAccessDesc access = {};
    access.location = properties_.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return driver_.Status(
        driver_.set_access(begin_ + first * kBytes, (end - first) * kBytes, &access, 1),
        "cuMemSetAccess");
  }

  absl::Status Unmap(size_t index) {
    const Chunk chunk = std::exchange(chunks_[index], 0);
    if (chunk == 0) return absl::OkStatus();
    absl::Status status =
        driver_.Status(driver_.unmap(begin_ + index * kBytes, kBytes), "cuMemUnmap");
    status.Update(driver_.Status(driver_.release(chunk), "cuMemRelease"));
    return status;
  }

  const Driver& driver_;
  const CUdeviceptr begin_;
  const size_t bytes_;
  CUmemAllocationProp properties_ = {};
  std::vector<Chunk> chunks_;
};

class CudaBackend final : public Backend {
 public:
  CudaBackend(int ordinal, const Driver& driver) : ordinal_(ordinal), driver_(driver) {}

  absl::StatusOr<Buffer> Allocate(MemoryKind kind, size_t bytes) override {
    PREGATE_CHECK(bytes > 0);
    switch (kind) {
      case MemoryKind::kHost:
        return host_.Allocate(kind, bytes);
      case MemoryKind::kPinned:
        return AllocatePinned(bytes);
      case MemoryKind::kDevice:
        return AllocateDevice(bytes);
    }
    return absl::InternalError("no such kind of memory");
  }

  absl::StatusOr<Buffer> Reserve(size_t bytes) override {
    PREGATE_CHECK(bytes > 0);
    PREGATE_RETURN_IF_ERROR(Select());
    const size_t padded = RoundUp(bytes, commit_bytes());
    CUdeviceptr begin = 0;
    PREGATE_RETURN_IF_ERROR(
        driver_.Status(driver_.address_reserve(&begin, padded, commit_bytes(), 0, 0),
                       absl::StrCat("cuMemAddressReserve of ", FormatBytes(padded))));
    auto* const data = reinterpret_cast<std::byte*>(begin);
    MutexLock lock(mutex_);
    reservations_.try_emplace(data, driver_, ordinal_, begin, padded);
    return Buffer(data, padded, MemoryKind::kDevice, [this](std::byte* address, size_t) {
      MutexLock release_lock(mutex_);
      reservations_.erase(address);
    });
  }

  absl::Status Commit(const Buffer& reserved, size_t offset, size_t bytes) override {
    PREGATE_RETURN_IF_ERROR(Select());
    const MemoryInfo free = memory();
    MutexLock lock(mutex_);
    return Find(reserved, offset, bytes)
        .Commit(offset / commit_bytes(), (offset + bytes) / commit_bytes(), free);
  }

  absl::Status Decommit(const Buffer& reserved, size_t offset, size_t bytes) override {
    PREGATE_RETURN_IF_ERROR(Select());
    MutexLock lock(mutex_);
    return Find(reserved, offset, bytes)
        .Decommit(offset / commit_bytes(), (offset + bytes) / commit_bytes());
  }

  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const std::string& /*name*/) override {
    PREGATE_RETURN_IF_ERROR(Select());
    cudaStream_t stream = nullptr;
    PREGATE_RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                                     "cudaStreamCreateWithFlags"));
    return std::make_unique<CudaStream>(events_, stream);
  }

  MemoryInfo memory() const override {
    size_t free = 0;
    size_t total = 0;
    if (!Select().ok() || cudaMemGetInfo(&free, &total) != cudaSuccess) return {};
    return {.total_bytes = total, .free_bytes = free};
  }

  bool is_host() const override { return false; }

 private:
  // The device of what the calling thread asks the runtime for.
  absl::Status Select() const { return ToStatus(cudaSetDevice(ordinal_), "cudaSetDevice"); }

  absl::StatusOr<Buffer> AllocatePinned(size_t bytes) {
    PREGATE_RETURN_IF_ERROR(Select());
    PREGATE_ASSIGN_OR_RETURN(Buffer pages, host_.Allocate(MemoryKind::kPinned, bytes));
    const cudaError_t error =
        cudaHostRegister(pages.data(), bytes, cudaHostRegisterPortable | cudaHostRegisterMapped);
    if (error != cudaSuccess) {
      return absl::ResourceExhaustedError(absl::StrCat(
          FormatBytes(bytes),
          " of pinned memory: ",
          ToStatus(error, "cudaHostRegister").message(),
          "; `ulimit -l unlimited` lifts the shell's limit on locked memory, if that is it"));
    }
    std::byte* const data = pages.data();
    // What Buffer keeps must be copyable.
    auto owner = std::make_shared<Buffer>(std::move(pages));
    return Buffer(data, bytes, MemoryKind::kPinned, [owner](std::byte* address, size_t) {
      cudaHostUnregister(address);
      *owner = Buffer();
    });
  }

  absl::StatusOr<Buffer> AllocateDevice(size_t bytes) {
    PREGATE_RETURN_IF_ERROR(Select());
    void* block = nullptr;
    const cudaError_t error = cudaMalloc(&block, bytes + kAlignment);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return NotEnoughMemory(MemoryKind::kDevice, bytes, memory().free_bytes);
    }
    PREGATE_RETURN_IF_ERROR(ToStatus(error, "cudaMalloc"));
    auto* const data =
        reinterpret_cast<std::byte*>(RoundUp(reinterpret_cast<uintptr_t>(block), kAlignment));
    return Buffer(
        data, bytes, MemoryKind::kDevice, [block](std::byte*, size_t) { cudaFree(block); });
  }

  Reservation& Find(const Buffer& reserved, size_t offset, size_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    PREGATE_CHECK(offset % commit_bytes() == 0 && bytes % commit_bytes() == 0);
    PREGATE_CHECK(offset + bytes <= reserved.size());
    const auto found = reservations_.find(reserved.data());
    PREGATE_CHECK(found != reservations_.end());
    return found->second;
  }

  const int ordinal_;
  const Driver driver_;
  CpuBackend host_;
  EventPool events_;
  Mutex mutex_;
  std::map<std::byte*, Reservation> reservations_ ABSL_GUARDED_BY(mutex_);
};

// Of CUDA, as it is written: "13.0".
std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

absl::Status CheckDevice(int ordinal) {
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver == 0) return absl::FailedPreconditionError("there is no NVIDIA driver");
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver is too old: it knows CUDA ",
                     VersionText(driver),
                     ", this needs ",
                     VersionText(CUDART_VERSION)));
  }
  if (error == cudaErrorNoDevice) return absl::FailedPreconditionError("there is no NVIDIA GPU");
  if (error != cudaSuccess) {
    return absl::FailedPreconditionError(ToStatus(error, "no GPU can be used").message());
  }
  if (ordinal < 0 || ordinal >= num_devices) {
    return absl::OutOfRangeError(
        absl::StrCat("cuda:", ordinal, " was asked for; there are ", num_devices, " GPUs, from 0"));
  }
  cudaDeviceProp properties;
  PREGATE_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties"));
  if (properties.major * 10 + properties.minor < kMinCapability) {
    return absl::FailedPreconditionError(absl::StrCat("cuda:",
                                                      ordinal,
                                                      " (",
                                                      properties.name,
                                                      ") has compute capability ",
                                                      properties.major,
                                                      ".",
                                                      properties.minor,
                                                      "; at least 8.6 is needed"));
  }
  return absl::OkStatus();
}

}  // namespace

cudaStream_t CudaStreamOf(Stream& stream) { return dynamic_cast<CudaStream&>(stream).stream(); }

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(int ordinal) {
  PREGATE_RETURN_IF_ERROR(CheckDevice(ordinal));
  PREGATE_RETURN_IF_ERROR(ToStatus(cudaSetDevice(ordinal), "cudaSetDevice"));
  PREGATE_ASSIGN_OR_RETURN(const Driver driver, FindDriver());
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = ordinal;
  size_t granularity = 0;
  PREGATE_RETURN_IF_ERROR(
      driver.Status(driver.granularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
                    "cuMemGetAllocationGranularity"));
  if (Backend::commit_bytes() % granularity != 0) {
    return absl::FailedPreconditionError(absl::StrCat("cuda:",
                                                      ordinal,
                                                      " maps memory in units of ",
                                                      FormatBytes(granularity),
                                                      "; units of ",
                                                      FormatBytes(Backend::commit_bytes()),
                                                      " are needed"));
  }
  return std::make_unique<CudaBackend>(ordinal, driver);
}

}  // namespace pregate
