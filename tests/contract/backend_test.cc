// The backends of every machine. tests/gpu has the other one.
#include "core/device/cpu_backend.h"
#include "tests/contract/backend_suite.h"
#include "tests/support/manual_backend.h"

namespace pregate {
namespace {

std::unique_ptr<Backend> MakeCpu() { return std::make_unique<CpuBackend>(); }
std::unique_ptr<Backend> MakePacedCpu() {
  return std::make_unique<CpuBackend>(
      SimulatedLink{.bytes_per_second = 1e9, .latency_seconds = 1e-5});
}

std::unique_ptr<Backend> MakeManual() { return std::make_unique<ManualBackend>(); }

INSTANTIATE_TEST_SUITE_P(All,
                         BackendTest,
                         testing::Values(BackendCase{"Cpu", MakeCpu},
                                         BackendCase{"PacedCpu", MakePacedCpu},
                                         BackendCase{"Manual", MakeManual}),
                         NameOf);

}  // namespace
}  // namespace pregate
