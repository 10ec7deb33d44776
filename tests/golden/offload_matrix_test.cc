// Offloading changes no bit: whatever is resident, predicted, late or evicted, the logits are those
// of experts that were never moved.
//
// By default a pairwise cover of all settings with 8 prompts. PREGATE_MATRIX=full (`make matrix`)
// runs every combination of residency, mode, strategy and link with 200, each with a value of the
// other settings that PREGATE_SEED draws.
#include <array>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bench/lockstep_decoder.h"
#include "core/model/torch_runner.h"
#include "core/text/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

constexpr uint32_t kPromptTokens = 24;
constexpr uint32_t kSteps = 6;
constexpr size_t kBatch = 4;

using Setting = std::vector<size_t>;  // an index into each factor's values

struct Factor {
  std::string name;
  std::vector<std::string> values;
};

std::vector<Setting> AllSettings(const std::vector<Factor>& factors) {
  std::vector<Setting> settings = {{}};
  for (const Factor& factor : factors) {
    std::vector<Setting> longer;
    for (const Setting& setting : settings) {
      for (size_t value = 0; value < factor.values.size(); ++value) {
        longer.push_back(setting);
        longer.back().push_back(value);
      }
    }
    settings = std::move(longer);
  }
  return settings;
}

// Pairs of values of two factors, as {factor, value, factor, value}.
std::set<std::array<size_t, 4>> PairsOf(const Setting& setting) {
  std::set<std::array<size_t, 4>> pairs;
  for (size_t a = 0; a < setting.size(); ++a) {
    for (size_t b = a + 1; b < setting.size(); ++b) pairs.insert({a, setting[a], b, setting[b]});
  }
  return pairs;
}

// Few settings among `all` in which every pair occurs: always the one with most pairs that are new.
std::vector<Setting> PairwiseCover(const std::vector<Setting>& all) {
  std::set<std::array<size_t, 4>> missing;
  for (const Setting& setting : all) missing.merge(PairsOf(setting));
  std::vector<Setting> cover;
  while (!missing.empty()) {
    const auto count_new = [&](const Setting& setting) {
      size_t count = 0;
      for (const auto& pair : PairsOf(setting)) count += missing.count(pair);
      return count;
    };
    const Setting* best = &all.front();
    size_t most = 0;
    for (const Setting& setting : all) {
      const size_t count = count_new(setting);
      if (count > most) best = &setting, most = count;
    }
    cover.push_back(*best);
    for (const auto& pair : PairsOf(*best)) missing.erase(pair);
  }
  return cover;
}

// The settings whose every factor from `num_crossed` on has one value, drawn at random.
std::vector<Setting> Crossed(const std::vector<Factor>& factors,
                             size_t num_crossed,
                             uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Setting> settings =
      AllSettings({factors.begin(), factors.begin() + static_cast<std::ptrdiff_t>(num_crossed)});
  for (Setting& setting : settings) {
    for (size_t i = num_crossed; i < factors.size(); ++i) {
      setting.push_back(random() % factors[i].values.size());
    }
  }
  return settings;
}

bool IsFull() {
  const char* const matrix = std::getenv("PREGATE_MATRIX");
  return matrix != nullptr && std::string(matrix) == "full";
}

class OffloadMatrixTest : public testing::TestWithParam<const char*> {
 protected:
  std::string folder() const { return absl::StrCat(PREGATE_SOURCE_DIR, "/models/", GetParam()); }
  bool is_pregated() const { return std::string(GetParam()) == "switch-mini"; }

  std::unique_ptr<TorchRunner> Load(const std::string& link, const std::string& host_memory) {
    EngineOptions options;
    options.model = folder();
    options.threads = 1;
    options.max_running = kBatch;
    options.max_context = 64;
    options.experts.pack_folder = packs_.path();
    options.experts.unified_memory = "off";
    options.experts.simulated_link = link;
    if (host_memory != "all") options.experts.host_memory_budget = std::stoull(host_memory);
    absl::StatusOr<std::unique_ptr<TorchRunner>> runner = TorchRunner::Load(options, logger_);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return runner.ok() ? *std::move(runner) : nullptr;
  }

  std::vector<std::vector<uint32_t>> Prompts(size_t count) const {
    const auto tokenizer = Tokenizer::Load(folder());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    std::ifstream file(absl::StrCat(PREGATE_SOURCE_DIR, "/tests/data/prompts.txt"));
    std::vector<std::vector<uint32_t>> prompts;
    for (std::string line; prompts.size() < count && std::getline(file, line);) {
      std::vector<uint32_t> ids = (*tokenizer)->Encode(line, false).value();
      ids.resize(std::min<size_t>(ids.size(), kPromptTokens));
      prompts.push_back(std::move(ids));
    }
    EXPECT_EQ(prompts.size(), count);
    return prompts;
  }

  // Every bit of the logits of prefill and greedy decode, each prompt alone and in batches.
  static std::vector<uint64_t> Digests(TorchRunner& runner,
                                       const std::vector<std::vector<uint32_t>>& prompts) {
    std::vector<uint64_t> digests;
    for (const size_t batch : {size_t{1}, kBatch}) {
      for (size_t first = 0; first + batch <= prompts.size(); first += batch) {
        absl::StatusOr<LockstepDecoder> decoder =
            LockstepDecoder::Create(runner,
                                    {prompts.begin() + static_cast<std::ptrdiff_t>(first),
                                     prompts.begin() + static_cast<std::ptrdiff_t>(first + batch)},
                                    kSteps + 1);
        EXPECT_TRUE(decoder.ok()) << decoder.status();
        absl::Status status = decoder->Prefill();
        for (uint32_t i = 0; i < kSteps && status.ok(); ++i) status = decoder->Step();
        EXPECT_TRUE(status.ok()) << status;
        digests.push_back(decoder->logits_digest());
      }
    }
    return digests;
  }

  const Logger logger_{LogLevel::kError};
  TempFolder packs_;
};

TEST_P(OffloadMatrixTest, ChangesNoBit) {
  const std::vector<std::vector<uint32_t>> prompts = Prompts(IsFull() ? 200 : 8);
  std::unique_ptr<TorchRunner> runner = Load("", "all");
  ASSERT_NE(runner, nullptr);
  const ExpertModel model = runner->experts().Read().model;
  const uint64_t record_bytes = runner->experts().Read().cache.slot_bytes;
  ASSERT_TRUE(runner->experts().SetMemoryStrategy("cpu_offload").ok());
  const std::vector<uint64_t> expected = Digests(*runner, prompts);

  std::vector<std::string> modes = PredictorNames();
  if (!is_pregated()) modes.erase(std::find(modes.begin(), modes.end(), "pregate"));
  // Link and host memory need a runner of their own; the others change while it serves.
  const std::vector<Factor> factors = {
      {"link", {"", "400MiB/s,20us"}},
      {"capacity", {absl::StrCat(model.num_experts), "25%", "50%", "100%"}},
      {"speculation", modes},
      {"strategy", {"single_async", "double_buffer", "streaming", "cpu_offload"}},
      {"host memory", {"all", absl::StrCat(6 * record_bytes)}},
      {"eviction", EvictionPolicyNames()},
      {"lookahead", {"1", "2"}},
  };
  constexpr size_t kCrossed = 4;  // in full
  const char* const seed_text = std::getenv("PREGATE_SEED");
  const uint64_t seed = seed_text == nullptr ? 1 : std::stoull(seed_text);
  SCOPED_TRACE(testing::Message() << "PREGATE_SEED=" << seed);
  std::vector<Setting> settings =
      IsFull() ? Crossed(factors, kCrossed, seed) : PairwiseCover(AllSettings(factors));
  const auto runner_of = [](const Setting& setting) { return Setting{setting[0], setting[4]}; };
  std::sort(settings.begin(), settings.end(), [&](const Setting& a, const Setting& b) {
    return std::pair(runner_of(a), a) < std::pair(runner_of(b), b);
  });

  Setting loaded;
  size_t done = 0;
  for (const Setting& setting : settings) {
    if (IsFull() && done++ % 16 == 0) {
      std::cout << absl::StrCat(done - 1, " of ", settings.size(), " settings") << std::endl;
    }
    const auto value = [&](size_t factor) { return factors[factor].values[setting[factor]]; };
    if (const Setting wanted = runner_of(setting); loaded != wanted) {
      runner.reset();
      runner = Load(value(0), value(4));
      ASSERT_NE(runner, nullptr);
      loaded = wanted;
    }
    std::vector<std::string> description;
    for (size_t i = 0; i < factors.size(); ++i) {
      description.push_back(absl::StrCat(factors[i].name, " '", value(i), "'"));
    }
    SCOPED_TRACE(absl::StrJoin(description, ", "));
    ExpertOffload& experts = runner->experts();
    ASSERT_TRUE(experts.SetMemoryStrategy(value(3)).ok());
    if (value(3) != "cpu_offload") {
      const absl::Status status = experts.SetCapacity(value(1));
      ASSERT_TRUE(status.ok()) << status;
    }
    ASSERT_TRUE(experts.SetEviction(value(5)).ok());
    ExpertOffload::SpeculationChange change;
    change.mode = value(2);
    change.lookahead = value(6) == "1" ? 1u : 2u;
    change.aggressiveness = 1.0;
    const absl::Status speculation = experts.SetSpeculation(change);
    ASSERT_TRUE(speculation.ok()) << speculation;
    EXPECT_EQ(Digests(*runner, prompts), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Models,
                         OffloadMatrixTest,
                         testing::Values("switch-mini", "qwen3-moe-mini"),
                         [](const auto& model) {
                           return model.param[0] == 's' ? "SwitchMini" : "Qwen3MoeMini";
                         });

}  // namespace
}  // namespace pregate
