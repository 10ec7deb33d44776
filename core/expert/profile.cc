#include "core/expert/profile.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/types/span.h"
#include "core/base/status_macros.h"
#include "core/expert/expert_id.h"

namespace pregate {
namespace {

constexpr uint64_t kSmallestCopy = uint64_t{256} << 10;
constexpr uint64_t kLargestCopy = uint64_t{64} << 20;
constexpr int kMostRuns = 5;
constexpr Duration kLongEnough = std::chrono::milliseconds(250);  // for the runs of one figure
constexpr double kLongestRun = 1;                                 // seconds

// Host memory, disk, five sizes of copy, a record's copy, seven of rows, the dense products.
constexpr uint32_t kNumSteps = 16;

// One profile under way.
class Measurement {
 public:
  Measurement(Backend& backend,
              const ExpertPack& pack,
              const Clock& clock,
              ProfiledModel& model,
              const OnProfileStep& on_step)
      : backend_(backend), pack_(pack), clock_(clock), model_(model), on_step_(on_step) {}

  absl::StatusOr<DeviceProfile> Run() {
    Describe();
    PREGATE_RETURN_IF_ERROR(Allocate());
    PREGATE_RETURN_IF_ERROR(MeasureHost());
    PREGATE_RETURN_IF_ERROR(MeasureDisk());
    PREGATE_RETURN_IF_ERROR(MeasureLink());
    PREGATE_RETURN_IF_ERROR(MeasureExperts());
    PREGATE_ASSIGN_OR_RETURN(profile_.dense_seconds,
                             FastestOf([&] { return model_.RunDenseLayer(); }));
    return std::move(profile_);
  }

 private:
  void Describe() {
    profile_.host = ReadHostInfo();
    profile_.device = model_.device();
    profile_.device_bytes = backend_.memory().total_bytes;
    profile_.free_bytes = backend_.memory().free_bytes;
    const auto codec = pack_.header().properties.find("codec");
    if (codec != pack_.header().properties.end()) profile_.codec = codec->second;
    profile_.record_bytes = pack_.header().record_bytes;
  }

  absl::Status Allocate() {
    const uint64_t bytes = std::max(kLargestCopy, pack_.stride_bytes());
    PREGATE_ASSIGN_OR_RETURN(host_, backend_.Allocate(MemoryKind::kPinned, bytes));
    PREGATE_ASSIGN_OR_RETURN(device_, backend_.Allocate(MemoryKind::kDevice, bytes));
    PREGATE_ASSIGN_OR_RETURN(stream_, backend_.CreateStream("profile"));
    // Pages that nobody wrote are all the same page, and copy too fast.
    std::memset(host_.data(), 1, host_.size());
    return absl::OkStatus();
  }

  absl::Status Copy(uint64_t offset, uint64_t bytes) {
    stream_->CopyAsync(device_.data() + offset, host_.data() + offset, bytes);
    return stream_->Synchronize();
  }

  absl::StatusOr<double> SecondsOf(const std::function<absl::Status()>& work) {
    const TimePoint start = clock_.Now();
    PREGATE_RETURN_IF_ERROR(work());
    return ToSeconds(clock_.Now() - start);
  }

  // A step: the fastest of a few runs, which is what the hardware can do when nobody disturbs it.
  absl::StatusOr<double> FastestOf(const std::function<absl::StatusOr<double>()>& run) {
    double fastest = 0;
    const TimePoint start = clock_.Now();
    for (int i = 0; i < kMostRuns && (i == 0 || clock_.Now() - start < kLongEnough); ++i) {
      PREGATE_RETURN_IF_ERROR(on_step_(done_, kNumSteps));
      PREGATE_ASSIGN_OR_RETURN(const double seconds, run());
      fastest = i == 0 ? seconds : std::min(fastest, seconds);
    }
    ++done_;
    return std::max(fastest, 1e-9);  // the clock may stand still
  }

  absl::StatusOr<double> CopySeconds(uint64_t bytes) {
    return FastestOf([&] { return SecondsOf([&] { return Copy(0, bytes); }); });
  }

  absl::Status MeasureHost() {
    const uint64_t half = host_.size() / 2;
    PREGATE_ASSIGN_OR_RETURN(const double seconds, FastestOf([&] {
                               return SecondsOf([&] {
                                 std::memcpy(host_.data(), host_.data() + half, half);
                                 return absl::OkStatus();
                               });
                             }));
    profile_.host_bytes_per_second = static_cast<double>(half) / seconds;
    return absl::OkStatus();
  }

  absl::Status ReadRecord(uint64_t index, std::byte* to) {
    const ExpertId id =
        ExpertId::FromFlat(static_cast<uint32_t>(index), pack_.header().num_experts);
    return pack_.Read(id.layer, id.expert, absl::MakeSpan(to, pack_.stride_bytes()));
  }

  // As many records as the buffers hold, which are those that experts are then computed from: what
  // of a small model stays in the CPU's caches stays there too.
  absl::Status MeasureDisk() {
    const uint64_t stride = pack_.stride_bytes();
    num_records_ = std::min(pack_.num_records(), host_.size() / stride);
    const TimePoint start = clock_.Now();
    double seconds = 0;
    for (uint64_t i = 0; i < num_records_; ++i) {
      PREGATE_RETURN_IF_ERROR(on_step_(done_, kNumSteps));
      PREGATE_RETURN_IF_ERROR(ReadRecord(i, host_.data() + i * stride));
      seconds = ToSeconds(clock_.Now() - start);
      if (seconds > kLongestRun) num_records_ = i + 1;
    }
    ++done_;
    profile_.disk_bytes_per_second =
        static_cast<double>(num_records_ * stride) / std::max(seconds, 1e-9);
    return absl::OkStatus();
  }

  absl::Status MeasureLink() {
    double longest = 0;
    for (uint64_t bytes = kSmallestCopy; bytes <= kLargestCopy; bytes *= 4) {
      if (4 * longest > kLongestRun) {
        ++done_;
        continue;
      }
      PREGATE_ASSIGN_OR_RETURN(longest, CopySeconds(bytes));
      profile_.link.push_back(
          {.bytes = bytes, .bytes_per_second = static_cast<double>(bytes) / longest});
    }
    PREGATE_ASSIGN_OR_RETURN(profile_.transfer_seconds, CopySeconds(profile_.record_bytes));
    return absl::OkStatus();
  }

  // The records that the disk brought, as many as the link carries in time.
  absl::Status CopyRecords() {
    const uint64_t stride = pack_.stride_bytes();
    const TimePoint start = clock_.Now();
    for (uint64_t i = 0; i < num_records_; ++i) {
      PREGATE_RETURN_IF_ERROR(on_step_(done_, kNumSteps));
      PREGATE_RETURN_IF_ERROR(Copy(i * stride, stride));
      if (ToSeconds(clock_.Now() - start) > kLongestRun) num_records_ = i + 1;
    }
    return absl::OkStatus();
  }

  absl::Status MeasureExperts() {
    const uint64_t stride = pack_.stride_bytes();
    PREGATE_RETURN_IF_ERROR(CopyRecords());
    uint64_t next = 0;
    for (uint32_t rows = 1; rows <= ProfiledModel::kMostRows; rows *= 2) {
      if (rows > 1 && 2 * profile_.compute.back().seconds > kLongestRun) {
        ++done_;
        continue;
      }
      PREGATE_ASSIGN_OR_RETURN(const double seconds, FastestOf([&] {
                                 const uint64_t record = next++ % num_records_;
                                 return model_.RunExpert(device_.data() + record * stride, rows);
                               }));
      profile_.compute.push_back({.rows = rows, .seconds = seconds});
    }
    return absl::OkStatus();
  }

  Backend& backend_;
  const ExpertPack& pack_;
  const Clock& clock_;
  ProfiledModel& model_;
  const OnProfileStep& on_step_;

  uint32_t done_ = 0;  // steps
  Buffer host_, device_;
  uint64_t num_records_ = 0;  // that the buffers hold
  std::unique_ptr<Stream> stream_;
  DeviceProfile profile_;
};

}  // namespace

absl::StatusOr<DeviceProfile> MeasureDevice(Backend& backend,
                                            const ExpertPack& pack,
                                            const Clock& clock,
                                            ProfiledModel& model,
                                            const OnProfileStep& on_step) {
  return Measurement(backend, pack, clock, model, on_step).Run();
}

}  // namespace pregate
