#include "bench/link_rate.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "core/base/status_macros.h"
#include "core/expert/expert_cache.h"

namespace pregate {
namespace {

constexpr uint32_t kMinLayers = 4;  // more than fit into the slots, with those that are expected
constexpr uint32_t kMaxLayers = 256;
constexpr uint32_t kSlotsPerExpert = 2;  // two layers' worth: one in use, one on its way

// Pinned records whose every word tells the record and the word's place.
class PinnedRecords final : public RecordSource {
 public:
  static absl::StatusOr<std::unique_ptr<PinnedRecords>> Create(Backend& backend,
                                                               uint64_t record_bytes,
                                                               uint32_t num_layers,
                                                               uint32_t num_experts) {
    auto records = std::unique_ptr<PinnedRecords>(new PinnedRecords);
    records->header_.num_layers = num_layers;
    records->header_.num_experts = num_experts;
    records->header_.record_bytes = record_bytes;
    const uint64_t stride = (record_bytes + 4095) / 4096 * 4096;
    records->stride_ = stride;
    PREGATE_ASSIGN_OR_RETURN(
        records->memory_, backend.Allocate(MemoryKind::kPinned, stride * num_layers * num_experts));
    for (uint32_t i = 0; i < num_layers * num_experts; ++i) records->Fill(i);
    return records;
  }

  const ExpertPackHeader& header() const override { return header_; }
  void Fetch(ExpertId id, bool /*is_urgent*/, Done done) override {
    done(HostRecord(record(id.Flat(header_.num_experts)), /*from_disk=*/false, nullptr));
  }
  void VisitStats(StatsVisitor& /*visitor*/) const override {}

  absl::Span<const std::byte> record(uint32_t index) const {
    return {memory_.data() + index * stride_, header_.record_bytes};
  }
  uint32_t size() const { return header_.num_layers * header_.num_experts; }

 private:
  PinnedRecords() = default;

  void Fill(uint32_t index) {
    std::byte* const begin = memory_.data() + index * stride_;
    for (uint64_t place = 0; place + 8 <= stride_; place += 8) {
      const uint64_t word = (uint64_t{index} << 40) | place;
      std::memcpy(begin + place, &word, 8);
    }
  }

  ExpertPackHeader header_;
  uint64_t stride_ = 0;
  Buffer memory_;
};

// One size of records, and each way to bring them over.
class Measurer {
 public:
  Measurer(Backend& backend, uint32_t top_k, uint32_t num_layers)
      : backend_(backend), top_k_(top_k), num_layers_(num_layers) {}

  absl::Status Open(uint64_t record_bytes) {
    PREGATE_ASSIGN_OR_RETURN(records_,
                             PinnedRecords::Create(backend_, record_bytes, num_layers_, top_k_));
    PREGATE_ASSIGN_OR_RETURN(
        seen_, backend_.Allocate(MemoryKind::kPinned, uint64_t{top_k_} * record_bytes));
    PREGATE_ASSIGN_OR_RETURN(
        slots_, backend_.Allocate(MemoryKind::kDevice, uint64_t{top_k_} * record_bytes));
    PREGATE_ASSIGN_OR_RETURN(copies_, backend_.CreateStream("link copies"));
    PREGATE_ASSIGN_OR_RETURN(consumer_, backend_.CreateStream("link consumer"));
    ExpertCache::Options options;
    options.num_slots = kSlotsPerExpert * top_k_;
    options.max_hinted_loads = top_k_;
    // What was used longest ago leaves, and comes again last: nothing is ever found.
    options.eviction = "fifo";
    PREGATE_ASSIGN_OR_RETURN(cache_,
                             ExpertCache::Create({records_.get()}, backend_, clock_, options));
    return absl::OkStatus();
  }

  // Seconds for all records.
  absl::StatusOr<double> Copy(bool is_checked) {
    const TimePoint begun = clock_.Now();
    for (uint32_t i = 0; i < records_->size(); ++i) {
      const absl::Span<const std::byte> record = records_->record(i);
      std::byte* const slot = slots_.data() + i % top_k_ * record.size();
      copies_->CopyAsync(slot, record.data(), record.size());
      if (is_checked) PREGATE_RETURN_IF_ERROR(Check(*copies_, slot, i));
    }
    PREGATE_RETURN_IF_ERROR(copies_->Synchronize());
    return ToSeconds(clock_.Now() - begun);
  }

  // The same through the cache. INTERNAL when a record was there already.
  absl::StatusOr<double> Acquire(bool is_hinted, bool is_checked) {
    cache_->Reset();
    const TimePoint begun = clock_.Now();
    for (uint32_t layer = 0; layer < num_layers_; ++layer) {
      PREGATE_ASSIGN_OR_RETURN(ExpertLease lease, cache_->Acquire(ExpertsOf(layer), *consumer_));
      if (is_hinted && layer + 1 < num_layers_) Hint(layer + 1);
      const auto lookups = lease.lookups();
      if (std::count(lookups.begin(), lookups.end(), Lookup::kHit) > 0 && !is_hinted) {
        return absl::InternalError(absl::StrCat("layer ", layer, ": an expert was resident"));
      }
      while (const std::optional<ExpertLease::Expert> expert = lease.Next()) {
        PREGATE_RETURN_IF_ERROR(expert->status);
        const uint32_t index = layer * top_k_ + static_cast<uint32_t>(expert->index);
        if (is_checked) PREGATE_RETURN_IF_ERROR(Check(*consumer_, expert->record, index));
      }
    }
    PREGATE_RETURN_IF_ERROR(consumer_->Synchronize());
    return ToSeconds(clock_.Now() - begun);
  }

  double bytes() const {
    return static_cast<double>(records_->size()) *
           static_cast<double>(records_->header().record_bytes);
  }
  uint32_t num_records() const { return records_->size(); }

 private:
  std::vector<ExpertId> ExpertsOf(uint32_t layer) const {
    std::vector<ExpertId> ids(top_k_);
    for (uint32_t i = 0; i < top_k_; ++i) ids[i] = {.layer = layer, .expert = i};
    return ids;
  }

  void Hint(uint32_t layer) {
    std::vector<ExpertHint> hints;
    for (const ExpertId id : ExpertsOf(layer)) hints.push_back({.id = id, .probability = 1.0F});
    cache_->Hint(hints);
  }

  // That `device` holds what `stream` was to bring there.
  absl::Status Check(Stream& stream, const std::byte* device, uint32_t index) {
    const absl::Span<const std::byte> expected = records_->record(index);
    stream.CopyAsync(seen_.data(), device, expected.size());
    PREGATE_RETURN_IF_ERROR(stream.Synchronize());
    if (std::memcmp(seen_.data(), expected.data(), expected.size()) == 0) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("record ", index, " came with other bytes"));
  }

  Backend& backend_;
  const uint32_t top_k_;
  const uint32_t num_layers_;
  const RealClock clock_;
  std::unique_ptr<PinnedRecords> records_;
  Buffer seen_;   // [top_k, record_bytes], on the host
  Buffer slots_;  // the same, on the device
  std::unique_ptr<Stream> copies_;
  std::unique_ptr<Stream> consumer_;
  std::unique_ptr<ExpertCache> cache_;
};

absl::StatusOr<LinkRate> MeasureOne(Backend& backend,
                                    const LinkRateOptions& options,
                                    uint64_t record_bytes,
                                    const std::function<void()>& on_step) {
  const uint64_t num_layers = options.host_bytes / options.top_k / record_bytes;
  if (num_layers < kMinLayers) {
    return absl::InvalidArgumentError(absl::StrCat("host-bytes: ",
                                                   FormatBytes(options.host_bytes),
                                                   " do not hold ",
                                                   kMinLayers,
                                                   " layers of ",
                                                   options.top_k,
                                                   " records of ",
                                                   FormatBytes(record_bytes)));
  }
  Measurer measurer(
      backend, options.top_k, static_cast<uint32_t>(std::min<uint64_t>(num_layers, kMaxLayers)));
  PREGATE_RETURN_IF_ERROR(measurer.Open(record_bytes));
  std::array<std::vector<double>, 3> rates;
  for (uint32_t turn = 0; turn <= options.iterations; ++turn) {
    const bool is_checked = turn == 0;  // and does not count
    for (size_t way = 0; way < rates.size(); ++way) {
      PREGATE_ASSIGN_OR_RETURN(
          const double seconds,
          way == 0 ? measurer.Copy(is_checked) : measurer.Acquire(way == 2, is_checked));
      if (turn > 0) rates[way].push_back(measurer.bytes() / seconds / 1e9);
    }
    on_step();
  }
  return LinkRate{.record_bytes = record_bytes,
                  .num_records = measurer.num_records(),
                  .copies = SpreadOf(std::move(rates[0])),
                  .demanded = SpreadOf(std::move(rates[1])),
                  .hinted = SpreadOf(std::move(rates[2]))};
}

}  // namespace

uint64_t NumLinkRateSteps(const LinkRateOptions& options) {
  return options.record_bytes.size() * (uint64_t{options.iterations} + 1);
}

absl::StatusOr<std::vector<LinkRate>> MeasureLinkRate(Backend& backend,
                                                      const LinkRateOptions& options,
                                                      const std::function<void()>& on_step) {
  std::vector<LinkRate> rates;
  for (const uint64_t bytes : options.record_bytes) {
    PREGATE_ASSIGN_OR_RETURN(const LinkRate rate, MeasureOne(backend, options, bytes, on_step));
    rates.push_back(rate);
  }
  return rates;
}

}  // namespace pregate
