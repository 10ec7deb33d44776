#include "core/expert/profile.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

constexpr uint64_t kSmallestCopy = uint64_t{256} << 10;
constexpr uint64_t kLargestCopy = uint64_t{64} << 20;
constexpr int kRepetitions = 5;
constexpr uint32_t kMostDiskReads = 32;
constexpr uint32_t kMostRows = 64;

// The settings that a card's users have found good, before anything is measured. The RTX 3090's are
// the research prototype's.
struct Preset {
  absl::string_view card;  // part of the device's name
  uint32_t concurrent_experts;
  absl::string_view codec;
  uint32_t max_running;
  double aggressiveness;
};
constexpr Preset kPresets[] = {{"RTX 3090", 6, "int8", 8, 0.7}};

const Preset* FindPreset(absl::string_view device) {
  for (const Preset& preset : kPresets) {
    if (absl::StrContains(device, preset.card)) return &preset;
  }
  return nullptr;
}

// The fastest of a few runs: what the hardware can do when nobody disturbs it.
absl::StatusOr<double> FastestSeconds(const Clock& clock,
                                      const std::function<absl::Status()>& work) {
  double fastest = 0;
  for (int i = 0; i < kRepetitions; ++i) {
    const TimePoint start = clock.Now();
    PREGATE_RETURN_IF_ERROR(work());
    const double seconds = std::max(1e-9, ToSeconds(clock.Now() - start));
    fastest = i == 0 ? seconds : std::min(fastest, seconds);
  }
  return fastest;
}

absl::Status MeasureLink(Backend& backend,
                         const Clock& clock,
                         uint64_t record_bytes,
                         DeviceProfile& profile) {
  const uint64_t largest = std::max(kLargestCopy, record_bytes);
  PREGATE_ASSIGN_OR_RETURN(const Buffer from, backend.Allocate(MemoryKind::kPinned, largest));
  PREGATE_ASSIGN_OR_RETURN(const Buffer to, backend.Allocate(MemoryKind::kDevice, largest));
  PREGATE_ASSIGN_OR_RETURN(const Buffer host, backend.Allocate(MemoryKind::kHost, largest));
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream("profile"));
  // Pages that nobody wrote are all the same page, and copy too fast.
  std::memset(from.data(), 1, largest);
  std::memset(host.data(), 1, largest);
  const auto copy_seconds = [&](uint64_t bytes) {
    return FastestSeconds(clock, [&] {
      stream->CopyAsync(to.data(), from.data(), bytes);
      return stream->Synchronize();
    });
  };
  PREGATE_RETURN_IF_ERROR(copy_seconds(largest).status());
  for (uint64_t bytes = kSmallestCopy; bytes <= kLargestCopy; bytes *= 4) {
    PREGATE_ASSIGN_OR_RETURN(const double seconds, copy_seconds(bytes));
    profile.link.push_back(
        {.bytes = bytes, .bytes_per_second = static_cast<double>(bytes) / seconds});
  }
  PREGATE_ASSIGN_OR_RETURN(profile.transfer_seconds, copy_seconds(record_bytes));
  PREGATE_ASSIGN_OR_RETURN(const double host_seconds, FastestSeconds(clock, [&] {
                             std::memcpy(from.data(), host.data(), largest);
                             return absl::OkStatus();
                           }));
  profile.host_bytes_per_second = static_cast<double>(largest) / host_seconds;
  return absl::OkStatus();
}

absl::Status MeasureDisk(Backend& backend,
                         const ExpertPack& pack,
                         const Clock& clock,
                         DeviceProfile& profile) {
  const uint64_t stride = pack.stride_bytes();
  const auto count = static_cast<uint32_t>(std::min<uint64_t>(kMostDiskReads, pack.num_records()));
  PREGATE_ASSIGN_OR_RETURN(const Buffer buffer, backend.Allocate(MemoryKind::kHost, stride));
  const absl::Span<std::byte> span(buffer.data(), stride);
  const TimePoint start = clock.Now();
  for (uint32_t i = 0; i < count; ++i) {
    const ExpertId id = ExpertId::FromFlat(i, pack.header().num_experts);
    PREGATE_RETURN_IF_ERROR(pack.Read(id.layer, id.expert, span));
  }
  profile.disk_bytes_per_second =
      static_cast<double>(count * stride) / std::max(1e-9, ToSeconds(clock.Now() - start));
  return absl::OkStatus();
}

Recommendation RecommendCapacity(const Preset* preset, const ProfiledModel& model) {
  const uint64_t all = uint64_t{model.num_layers} * model.num_experts;
  const uint64_t fitting = std::min(all, model.expert_budget_bytes / model.record_bytes);
  const uint64_t slots = std::max<uint64_t>(1, fitting);
  std::string reason = absl::StrCat(slots,
                                    " of ",
                                    all,
                                    " experts of ",
                                    FormatBytes(model.record_bytes),
                                    " fit in the ",
                                    FormatBytes(model.expert_budget_bytes),
                                    " left for them");
  if (preset != nullptr && preset->concurrent_experts != slots) {
    absl::StrAppend(
        &reason, "; the preset's ", preset->concurrent_experts, " concurrent experts give way");
  }
  return {.flag = "expert_capacity",
          .value = absl::StrCat(slots),
          .is_text = true,
          .reason = std::move(reason)};
}

Recommendation RecommendCodec(const Preset* preset,
                              const DeviceProfile& profile,
                              const ProfiledModel& model) {
  const uint64_t all_exact =
      uint64_t{model.num_layers} * model.num_experts * model.exact_record_bytes;
  const double exact_seconds = profile.transfer_seconds *
                               static_cast<double>(model.exact_record_bytes) /
                               static_cast<double>(model.record_bytes);
  const std::string given_way = preset == nullptr || preset->codec == "none"
                                    ? ""
                                    : absl::StrCat("; the preset's ", preset->codec, " gives way");
  const auto recommend = [](absl::string_view codec, std::string reason) {
    return Recommendation{.flag = "expert_codec",
                          .value = std::string(codec),
                          .is_text = true,
                          .reason = std::move(reason)};
  };
  if (all_exact <= model.expert_budget_bytes) {
    return recommend("none", absl::StrCat("all experts fit as they are", given_way));
  }
  const double layers = exact_seconds / model.layer_seconds;
  if (layers <= 1) {
    return recommend(
        "none",
        absl::StrFormat(
            "an exact expert's copy takes %.2g of a layer's computing%s", layers, given_way));
  }
  const absl::string_view codec = layers <= 4 ? "int8" : "int4";
  return recommend(codec,
                   absl::StrFormat("an exact expert's copy takes %.2g times a layer's computing: "
                                   "fewer bytes are worth their loss",
                                   layers));
}

Recommendation RecommendStrategy(const ProfiledModel& model) {
  const uint64_t all = uint64_t{model.num_layers} * model.num_experts;
  const uint64_t slots = std::min(all, model.expert_budget_bytes / model.record_bytes);
  const auto recommend = [](absl::string_view strategy, std::string reason) {
    return Recommendation{.flag = "memory_strategy",
                          .value = std::string(strategy),
                          .is_text = true,
                          .reason = std::move(reason)};
  };
  if (slots == 0) return recommend("cpu_offload", "no expert fits on the device");
  if (slots < 2 * uint64_t{model.experts_per_token}) {
    return recommend("streaming", "less than two layers' worth of a token's experts fit");
  }
  return recommend("single_async", "two layers' worth of a token's experts fit");
}

// The most rows of which each still costs a tenth less than with half as many.
Recommendation RecommendBatch(const Preset* preset, const DeviceProfile& profile) {
  uint32_t rows = profile.compute.front().rows;
  for (size_t i = 1; i < profile.compute.size(); ++i) {
    const DeviceProfile::ComputePoint& fewer = profile.compute[i - 1];
    const DeviceProfile::ComputePoint& more = profile.compute[i];
    if (more.seconds / more.rows > 0.9 * fewer.seconds / fewer.rows) break;
    rows = more.rows;
  }
  std::string reason =
      absl::StrCat("up to ", rows, " tokens an expert's time for each falls by a tenth or more");
  if (preset != nullptr && preset->max_running != rows) {
    absl::StrAppend(&reason, "; the preset's batch of ", preset->max_running, " gives way");
  }
  return {.flag = "max_running", .value = absl::StrCat(rows), .reason = std::move(reason)};
}

Recommendation RecommendAggressiveness(const Preset* preset,
                                       const DeviceProfile& profile,
                                       const ProfiledModel& model) {
  const double usual = preset == nullptr ? 0.7 : preset->aggressiveness;
  const double loads = model.layer_seconds / profile.transfer_seconds;
  const auto recommend = [](double value, std::string reason) {
    return Recommendation{.flag = "speculation_aggressiveness",
                          .value = absl::StrFormat("%.2g", value),
                          .reason = std::move(reason)};
  };
  const std::string carried =
      absl::StrFormat("the link carries %.2g experts in the time of a layer, which needs %d",
                      loads,
                      model.experts_per_token);
  if (loads >= 2.0 * model.experts_per_token) {
    return recommend(std::max(usual, 0.9), absl::StrCat(carried, ": wrong guesses are cheap"));
  }
  if (loads < 0.25 * model.experts_per_token) {
    return recommend(std::min(usual, 0.4), absl::StrCat(carried, ": only sure guesses pay"));
  }
  return recommend(usual, carried);
}

}  // namespace

absl::StatusOr<DeviceProfile> MeasureDevice(
    Backend& backend,
    absl::string_view device,
    const ExpertPack& pack,
    const Clock& clock,
    const std::function<absl::StatusOr<double>(uint32_t rows)>& compute_expert) {
  DeviceProfile profile;
  profile.device = std::string(device);
  profile.device_bytes = backend.memory().total_bytes;
  profile.free_bytes = backend.memory().free_bytes;
  PREGATE_RETURN_IF_ERROR(MeasureLink(backend, clock, pack.header().record_bytes, profile));
  PREGATE_RETURN_IF_ERROR(MeasureDisk(backend, pack, clock, profile));
  for (uint32_t rows = 1; rows <= kMostRows; rows *= 2) {
    double fastest = 0;
    for (int i = 0; i < kRepetitions; ++i) {
      PREGATE_ASSIGN_OR_RETURN(const double seconds, compute_expert(rows));
      fastest = i == 0 ? seconds : std::min(fastest, seconds);
    }
    profile.compute.push_back({.rows = rows, .seconds = fastest});
  }
  return profile;
}

std::vector<Recommendation> Recommend(const DeviceProfile& profile, const ProfiledModel& model) {
  const Preset* const preset = FindPreset(profile.device);
  return {RecommendCapacity(preset, model),
          RecommendCodec(preset, profile, model),
          RecommendStrategy(model),
          RecommendBatch(preset, profile),
          RecommendAggressiveness(preset, profile, model)};
}

std::string FormatProfile(const DeviceProfile& profile,
                          absl::Span<const Recommendation> recommendations) {
  const auto rate = [](double bytes_per_second) {
    return absl::StrCat(FormatBytes(static_cast<uint64_t>(bytes_per_second)), "/s");
  };
  std::string text = absl::StrFormat("%-22s %s\n", "device", profile.device);
  const auto row = [&text](absl::string_view name, absl::string_view value) {
    absl::StrAppend(&text, absl::StrFormat("%-22s %s\n", name, value));
  };
  row("memory",
      absl::StrCat(
          FormatBytes(profile.device_bytes), ", ", FormatBytes(profile.free_bytes), " free"));
  row("host memory", rate(profile.host_bytes_per_second));
  row("disk", rate(profile.disk_bytes_per_second));
  for (const DeviceProfile::LinkPoint& point : profile.link) {
    row(absl::StrCat("link, ", FormatBytes(point.bytes)), rate(point.bytes_per_second));
  }
  row("one expert's copy", absl::StrFormat("%.1f us", profile.transfer_seconds * 1e6));
  for (const DeviceProfile::ComputePoint& point : profile.compute) {
    row(absl::StrCat("one expert, ", point.rows, point.rows == 1 ? " token" : " tokens"),
        absl::StrFormat("%.1f us", point.seconds * 1e6));
  }
  absl::StrAppend(&text, "\n", FormatConfig(recommendations));
  return text;
}

std::string FormatConfig(absl::Span<const Recommendation> recommendations) {
  std::string text;
  for (const Recommendation& recommendation : recommendations) {
    const char* const quote = recommendation.is_text ? "\"" : "";
    absl::StrAppend(&text,
                    "# ",
                    recommendation.reason,
                    "\n",
                    recommendation.flag,
                    ": ",
                    quote,
                    recommendation.value,
                    quote,
                    "\n");
  }
  return text;
}

}  // namespace pregate
