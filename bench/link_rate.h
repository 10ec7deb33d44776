// How fast experts come over the link: pinned host memory to the device, bare and through the
// expert cache.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/spread.h"
#include "core/device/backend.h"

namespace pregate {

struct LinkRateOptions {
  std::vector<uint64_t> record_bytes;       // of an expert, each > 0: measured one after another
  uint64_t host_bytes = uint64_t{1} << 30;  // of records on the host, at least four layers of them
  uint32_t top_k = 8;                       // experts that a layer needs
  uint32_t iterations = 5;                  // turns that count, ≥ 1, after one that does not
};

// GB/s (1e9 bytes), turn by turn beside one another. No record is resident when it is asked for.
struct LinkRate {
  uint64_t record_bytes = 0;
  uint32_t num_records = 0;
  Spread copies;    // one stream, one copy a record: the bound
  Spread demanded;  // each layer's experts are acquired when it begins
  Spread hinted;    // while a layer waits for its experts, those of the next are expected
};

// Every record's bytes are compared, once for each way, after they have come. INTERNAL names the
// record that came wrong; INVALID_ARGUMENT: host_bytes. `on_step` is called after each of
// NumLinkRateSteps steps.
absl::StatusOr<std::vector<LinkRate>> MeasureLinkRate(Backend& backend,
                                                      const LinkRateOptions& options,
                                                      const std::function<void()>& on_step);
uint64_t NumLinkRateSteps(const LinkRateOptions& options);

}  // namespace pregate
