#include "core/expert/recommendation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// The RTX 3090's are the research prototype's.
struct Preset {
  absl::string_view card;  // part of the device's name
  absl::string_view concurrent_experts;
  absl::string_view codec;
  absl::string_view max_running;
  absl::string_view aggressiveness;
};
constexpr Preset kPresets[] = {{"RTX 3090", "6", "int8", "8", "0.7"}};

// Without a preset.
constexpr double kUsualAggressiveness = 0.7;

// All empty for a card that is not known.
Preset FindPreset(absl::string_view device) {
  for (const Preset& preset : kPresets) {
    if (absl::StrContains(device, preset.card)) return preset;
  }
  return Preset();
}

// Works out one setting after another, each for those before it.
class Advice {
 public:
  Advice(const DeviceProfile& profile, const ProfiledModel& model)
      : profile_(profile),
        model_(model),
        preset_(FindPreset(profile.device)),
        encodings_(model.encodings()) {}

  absl::StatusOr<std::vector<Recommendation>> Give() {
    AdviseBatch();
    PREGATE_RETURN_IF_ERROR(AdviseCodec());
    PREGATE_RETURN_IF_ERROR(AdviseSlots());
    AdviseAggressiveness();
    return std::move(given_);
  }

 private:
  void Add(absl::string_view flag,
           std::string value,
           std::string reason,
           absl::string_view preset = "") {
    given_.push_back({.flag = std::string(flag),
                      .value = std::move(value),
                      .reason = std::move(reason),
                      .preset = std::string(preset)});
  }

  // The fewest rows at which one costs at most a tenth more than at the best number of them.
  void AdviseBatch() {
    const auto per_row = [](const DeviceProfile::ComputePoint& point) {
      return point.seconds / point.rows;
    };
    double best = per_row(profile_.compute.front());
    for (const auto& point : profile_.compute) best = std::min(best, per_row(point));
    const auto enough =
        std::find_if(profile_.compute.begin(), profile_.compute.end(), [&](const auto& point) {
          return per_row(point) <= 1.1 * best;
        });
    max_running_ = enough->rows;
    Add("max_running",
        absl::StrCat(max_running_),
        absl::StrFormat("an expert takes %.3g us for each of %d tokens, at best %.3g us",
                        per_row(*enough) * 1e6,
                        max_running_,
                        best * 1e6),
        preset_.max_running);
  }

  // Of one expert in another encoding than the profiled one.
  double TransferSeconds(uint64_t record_bytes) const {
    return profile_.transfer_seconds * static_cast<double>(record_bytes) /
           static_cast<double>(profile_.record_bytes);
  }

  // Of computing a layer for one token, its experts resident.
  double LayerSeconds(const ProfiledModel::Room& room) const {
    return profile_.dense_seconds + room.slots.experts_per_token * profile_.compute.front().seconds;
  }

  static uint64_t NumExperts(const ProfiledModel::Room& room) {
    return uint64_t{room.slots.num_layers} * room.slots.num_experts;
  }

  // The most exact encoding with which experts need not be waited for, as far as one knows.
  absl::StatusOr<std::pair<size_t, std::string>> ChooseEncoding() const {
    PREGATE_ASSIGN_OR_RETURN(const ProfiledModel::Room exact,
                             model_.PlanRoom(encodings_.front().codec, max_running_));
    if (encodings_.size() == 1) return std::pair(size_t{0}, std::string("the pack's own"));
    if (exact.slots.shares_memory) {
      for (size_t i = 0; i < encodings_.size(); ++i) {
        PREGATE_ASSIGN_OR_RETURN(const ProfiledModel::Room room,
                                 model_.PlanRoom(encodings_[i].codec, max_running_));
        if (room.host_holds_all) return std::pair(i, std::string("host memory holds all experts"));
      }
      return std::pair(encodings_.size() - 1,
                       std::string("host memory does not hold all experts: the smallest"));
    }
    if (NumExperts(exact) * exact.slots.slot_bytes <= exact.slots.budget_bytes) {
      return std::pair(size_t{0}, std::string("the device holds all experts as they are"));
    }
    const double layers = TransferSeconds(encodings_.front().record_bytes) / LayerSeconds(exact);
    const std::string measured =
        absl::StrFormat("an exact expert's copy takes %.2g times a layer's computing", layers);
    if (layers <= 1) return std::pair(size_t{0}, measured);
    return std::pair(layers <= 4 ? size_t{1} : encodings_.size() - 1,
                     absl::StrCat(measured, ": fewer bytes are worth their loss"));
  }

  absl::Status AdviseCodec() {
    PREGATE_ASSIGN_OR_RETURN(auto chosen, ChooseEncoding());
    encoding_ = encodings_[chosen.first];
    PREGATE_ASSIGN_OR_RETURN(room_, model_.PlanRoom(encoding_.codec, max_running_));
    Add("expert_codec", encoding_.codec, std::move(chosen.second), preset_.codec);
    return absl::OkStatus();
  }

  absl::Status AdviseSlots() {
    PREGATE_ASSIGN_OR_RETURN(const SlotPlan plan, PlanSlots("auto", "", room_.slots));
    strategy_ = plan.strategy;
    num_slots_ = plan.num_slots;
    if (strategy_ == "cpu_offload") {
      const std::string why = room_.slots.shares_memory
                                  ? "device and host share memory: nothing has to be copied"
                                  : "no expert fits on the device";
      Add("expert_capacity", "", why, preset_.concurrent_experts);
      Add("memory_strategy", strategy_, why);
      return absl::OkStatus();
    }
    Add("expert_capacity",
        absl::StrCat(num_slots_),
        absl::StrCat(num_slots_,
                     " of ",
                     NumExperts(room_),
                     " experts of ",
                     FormatBytes(room_.slots.slot_bytes),
                     " fit in the ",
                     FormatBytes(room_.slots.budget_bytes),
                     " left for them"),
        preset_.concurrent_experts);
    Add("memory_strategy",
        strategy_,
        strategy_ == "streaming" ? "fewer than two layers' worth of a token's experts fit"
                                 : "two layers' worth of a token's experts fit");
    return absl::OkStatus();
  }

  void AdviseAggressiveness() {
    constexpr absl::string_view kFlag = "speculation_aggressiveness";
    if (strategy_ == "cpu_offload" || strategy_ == "streaming") {
      return Add(kFlag, "", "nothing is loaded ahead", preset_.aggressiveness);
    }
    if (num_slots_ == NumExperts(room_)) {
      return Add(kFlag, "", "all experts stay on the device", preset_.aggressiveness);
    }
    const uint32_t needed = room_.slots.experts_per_token;
    const double carried = LayerSeconds(room_) / TransferSeconds(encoding_.record_bytes);
    const std::string measured = absl::StrFormat(
        "the link carries %.2g experts in the time of a layer, which needs %d", carried, needed);
    if (carried >= 2.0 * needed) {
      return Add(kFlag,
                 "0.9",
                 absl::StrCat(measured, ": wrong guesses are cheap"),
                 preset_.aggressiveness);
    }
    if (carried < 0.25 * needed) {
      return Add(
          kFlag, "0.4", absl::StrCat(measured, ": only sure guesses pay"), preset_.aggressiveness);
    }
    Add(kFlag,
        preset_.aggressiveness.empty() ? absl::StrCat(kUsualAggressiveness)
                                       : std::string(preset_.aggressiveness),
        measured,
        preset_.aggressiveness);
  }

  const DeviceProfile& profile_;
  const ProfiledModel& model_;
  const Preset preset_;
  const std::vector<ProfiledModel::Encoding> encodings_;

  std::vector<Recommendation> given_;
  uint32_t max_running_ = 0;
  ProfiledModel::Encoding encoding_;
  ProfiledModel::Room room_;  // with encoding_ and max_running_
  std::string strategy_;
  uint32_t num_slots_ = 0;
};

std::string Rate(double bytes_per_second) {
  return absl::StrFormat("%.2f GB/s", bytes_per_second / 1e9);
}

std::string Microseconds(double seconds) { return absl::StrFormat("%.1f us", seconds * 1e6); }

}  // namespace

absl::StatusOr<std::vector<Recommendation>> Recommend(const DeviceProfile& profile,
                                                      const ProfiledModel& model) {
  return Advice(profile, model).Give();
}

std::string Explain(const Recommendation& recommendation) {
  const std::string& preset = recommendation.preset;
  if (preset.empty()) return recommendation.reason;
  if (preset == recommendation.value) {
    return absl::StrCat(recommendation.reason, "; the card's preset says the same");
  }
  return absl::StrCat(recommendation.reason, "; the card's preset of ", preset, " gives way");
}

std::string FormatProfile(const DeviceProfile& profile) {
  std::string text;
  const auto row = [&text](absl::string_view name, absl::string_view value) {
    absl::StrAppend(&text, absl::StrFormat("%-24s %s\n", name, value));
  };
  row("host",
      absl::StrCat(profile.host.cpu,
                   ", ",
                   profile.host.num_cpus,
                   " CPUs, ",
                   FormatBytes(profile.host.memory_bytes)));
  row("device",
      absl::StrCat(profile.device,
                   ", ",
                   FormatBytes(profile.device_bytes),
                   ", ",
                   FormatBytes(profile.free_bytes),
                   " free"));
  row("host memory", Rate(profile.host_bytes_per_second));
  row("disk", Rate(profile.disk_bytes_per_second));
  for (const DeviceProfile::LinkPoint& point : profile.link) {
    row(absl::StrCat("link, ", FormatBytes(point.bytes)), Rate(point.bytes_per_second));
  }
  row("one expert",
      absl::StrCat(FormatBytes(profile.record_bytes),
                   profile.codec.empty() ? "" : ", codec ",
                   profile.codec));
  row("its copy", Microseconds(profile.transfer_seconds));
  for (const DeviceProfile::ComputePoint& point : profile.compute) {
    row(absl::StrCat("its products, ", point.rows, point.rows == 1 ? " token" : " tokens"),
        Microseconds(point.seconds));
  }
  row("a layer's others", Microseconds(profile.dense_seconds));
  return text;
}

}  // namespace pregate
