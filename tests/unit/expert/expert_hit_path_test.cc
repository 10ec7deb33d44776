// That the expert cache allocates nothing for experts that are resident. A program of its own: it
// counts what the thread allocates, whoever does.
#include <cstdlib>
#include <new>
#include <thread>

#include "core/device/cpu_backend.h"
#include "core/expert/expert_cache.h"
#include "gtest/gtest.h"
#include "tests/support/scripted_source.h"

namespace {
thread_local size_t num_allocations = 0;
}  // namespace

void* operator new(size_t bytes) {
  ++num_allocations;
  if (void* const data = std::malloc(bytes)) return data;
  throw std::bad_alloc();
}
// Never inlined: GCC would see what new gave freed by free() (-Wmismatched-new-delete).
[[gnu::noinline]] void operator delete(void* data) noexcept { std::free(data); }
[[gnu::noinline]] void operator delete(void* data, size_t /*bytes*/) noexcept { std::free(data); }

namespace pregate {
namespace {

constexpr uint32_t kLayers = 4;
constexpr uint32_t kExperts = 16;

TEST(ExpertHitPath, AllocatesNothing) {
  ScriptedSource source(kLayers, kExperts, 64);
  CpuBackend backend;
  const RealClock clock;
  CallerStream stream;
  for (const std::string& eviction : EvictionPolicyNames()) {
    ExpertCache::Options options;
    options.num_slots = kLayers * kExperts;
    options.eviction = eviction;
    auto cache = ExpertCache::Create({&source}, backend, clock, options);
    ASSERT_TRUE(cache.ok()) << cache.status();
    std::vector<ExpertId> ids(kExperts);
    std::vector<ExpertHint> hints(kExperts);
    const auto run_layer = [&](uint32_t layer) {
      for (uint32_t i = 0; i < kExperts; ++i) {
        ids[i] = {.layer = layer, .expert = i};
        hints[i] = {.id = {.layer = (layer + 1) % kLayers, .expert = i}, .probability = 0.5F};
      }
      absl::StatusOr<ExpertLease> lease = (*cache)->Acquire(ids, stream);
      while (lease->Next().has_value()) {
      }
      (*cache)->Hint(hints);
    };
    for (uint32_t layer = 0; layer < kLayers; ++layer) run_layer(layer);
    while ((*cache)->Read().slots.ready < options.num_slots) std::this_thread::yield();
    run_layer(0);

    const uint64_t hits = (*cache)->Read().lookups[static_cast<size_t>(Lookup::kHit)];
    const size_t before = num_allocations;
    for (int step = 0; step < 100; ++step) {
      for (uint32_t layer = 0; layer < kLayers; ++layer) run_layer(layer);
    }
    EXPECT_EQ(num_allocations, before) << eviction;
    EXPECT_GT(before, 0u) << "they are counted";
    EXPECT_EQ((*cache)->Read().lookups[static_cast<size_t>(Lookup::kHit)],
              hits + uint64_t{100} * kLayers * kExperts);
  }
}

}  // namespace
}  // namespace pregate
