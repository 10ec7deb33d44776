#include "core/expert/eviction_policy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/expert/eviction_policies.h"

namespace pregate {
namespace {

using Factory = std::unique_ptr<EvictionPolicy> (*)(const EvictionShape& shape);

// Every policy that --eviction knows, the default first.
constexpr std::pair<absl::string_view, Factory> kPolicies[] = {
    {"ewma", MakeEwmaEviction},
    {"lfru", MakeLfruEviction},
    {"lru", MakeLruEviction},
    {"lfu", MakeLfuEviction},
    {"fifo", MakeFifoEviction},
};

}  // namespace

std::vector<std::string> EvictionPolicyNames() {
  std::vector<std::string> names;
  for (const auto& [name, make] : kPolicies) names.emplace_back(name);
  return names;
}

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(absl::string_view name,
                                                                   const EvictionShape& shape) {
  for (const auto& [known, make] : kPolicies) {
    if (known == name) return make(shape);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "eviction: '", name, "' is not one of ", absl::StrJoin(EvictionPolicyNames(), ", ")));
}

}  // namespace pregate
