// The standard process_* metrics, read from /proc/self.
#pragma once

#include "core/base/stats.h"

namespace pregate {

// CPU seconds, resident and virtual memory, open descriptors and their limit, start time. What
// cannot be read is left out. Thread-safe.
void VisitProcessStats(StatsVisitor& visitor);

}  // namespace pregate
