// A recorded routing trace, as it is and with the checksum that belongs to it.
#include "core/expert/routing_trace.h"
#include "core/storage/whole_file.h"
#include "tests/fuzz/fuzz_input.h"

namespace pregate {
namespace {

// One that was accepted is written as the same bytes.
void Parse(absl::string_view bytes) {
  const absl::StatusOr<RoutingTrace> trace = ParseRoutingTrace(bytes);
  if (!trace.ok()) return;
  for (const RoutingTrace::Sequence& sequence : trace->sequences) {
    const uint32_t num_tokens = trace->num_tokens(sequence);
    if (num_tokens == 0) continue;
    const auto experts = trace->ExpertsOf(sequence, num_tokens - 1, trace->num_layers - 1);
    PREGATE_CHECK(experts.size() == trace->experts_per_token, experts.size());
    for (const uint16_t expert : experts) PREGATE_CHECK(expert < trace->num_experts, expert);
  }
  PREGATE_CHECK(SerializeRoutingTrace(*trace) == bytes);
}

}  // namespace
}  // namespace pregate

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pregate;
  const absl::string_view input = TextOf(data, size);
  Parse(input);
  Parse(absl::StrCat(input, LittleEndian(Checksum(input), 8)));
  return 0;
}
