// Which expert.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace pregate {

// An expert of a layer that has experts; layers without any are not counted.
struct ExpertId {
  uint32_t layer = 0;
  uint32_t expert = 0;

  // Among all experts of the model, layer by layer.
  uint32_t Flat(uint32_t num_experts) const { return layer * num_experts + expert; }
  static ExpertId FromFlat(uint32_t flat, uint32_t num_experts) {
    return {.layer = flat / num_experts, .expert = flat % num_experts};
  }

  friend bool operator==(const ExpertId&, const ExpertId&) = default;
  friend bool operator<(const ExpertId& a, const ExpertId& b) {
    return std::tie(a.layer, a.expert) < std::tie(b.layer, b.expert);
  }
};

// "12/83", as messages name it.
inline std::string ToString(const ExpertId& id) { return absl::StrCat(id.layer, "/", id.expert); }

}  // namespace pregate
