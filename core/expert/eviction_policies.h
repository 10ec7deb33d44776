// The policies that are there, for the table in eviction_policy.cc.
#pragma once

#include <memory>

#include "core/expert/eviction_policy.h"

namespace pregate {

// A moving average of uses per step, less what it costs to wait for the next one.
std::unique_ptr<EvictionPolicy> MakeEwmaEviction(const EvictionShape& shape);
// Uses, divided by the steps since the last.
std::unique_ptr<EvictionPolicy> MakeLfruEviction(const EvictionShape& shape);
// When it was used last.
std::unique_ptr<EvictionPolicy> MakeLruEviction(const EvictionShape& shape);
// How often it was used.
std::unique_ptr<EvictionPolicy> MakeLfuEviction(const EvictionShape& shape);
// When it became resident.
std::unique_ptr<EvictionPolicy> MakeFifoEviction(const EvictionShape& shape);

}  // namespace pregate
