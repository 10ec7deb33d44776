// How busy an engine is, at one moment.
#pragma once

#include <cstdint>

#include "core/base/clock.h"

namespace pregate {

struct EngineLoad {
  uint32_t running = 0;  // sequences
  uint32_t waiting = 0;  // requests
  uint32_t kv_blocks_used = 0;
  uint32_t kv_blocks_cached = 0;  // not used, but what they hold may be reused
  uint32_t kv_blocks_total = 0;
  // When the last step ended or, if the engine was idle since, when it got work: an engine that is
  // busy and has not moved this for long is stuck. The engine's start before the first request.
  TimePoint last_step = {};
};

}  // namespace pregate
