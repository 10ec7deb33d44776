// A model whose experts cost what a test says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/expert/profile.h"

namespace pregate {

// Used by one thread at a time. What is not said costs nothing.
class FakeProfiledModel final : public ProfiledModel {
 public:
  struct Options {
    std::string device = "cpu";
    std::vector<Encoding> encodings;
    SlotNeeds slots;  // of which slot_bytes becomes that of the encoding
    uint64_t host_bytes = UINT64_MAX;
    double dense_seconds = 0;
    // Null: an expert takes a microsecond a row.
    std::function<absl::StatusOr<double>(const std::byte* record, uint32_t rows)> run_expert;
  };
  explicit FakeProfiledModel(Options options) : options_(std::move(options)) {}

  std::string device() const override { return options_.device; }
  std::vector<Encoding> encodings() const override { return options_.encodings; }
  absl::StatusOr<Room> PlanRoom(absl::string_view codec, uint32_t max_running) const override {
    Room room;
    room.slots = options_.slots;
    room.slots.max_running = max_running;
    for (const Encoding& encoding : options_.encodings) {
      if (encoding.codec == codec) room.slots.slot_bytes = encoding.record_bytes;
    }
    const uint64_t all =
        uint64_t{room.slots.num_layers} * room.slots.num_experts * room.slots.slot_bytes;
    room.host_holds_all = all <= options_.host_bytes;
    return room;
  }
  absl::StatusOr<double> RunExpert(const std::byte* record, uint32_t rows) override {
    return options_.run_expert ? options_.run_expert(record, rows) : rows * 1e-6;
  }
  absl::StatusOr<double> RunDenseLayer() override { return options_.dense_seconds; }

 private:
  const Options options_;
};

}  // namespace pregate
