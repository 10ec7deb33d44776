// What experts cost, as `benchmark`, `compare` and `sweep` tell it: fields and what must hold of
// them, never times.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/expert/routing_trace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/bench/bench_program.h"

namespace pregate {
namespace {

using nlohmann::json;
using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::Not;

class OffloadCommands : public TinyModelTest {
 protected:
  // Runs a subcommand on the tiny model, on few tokens.
  static ProgramResult Run(const std::string& subcommand, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {subcommand,
                                          "--model",
                                          Model(),
                                          "--pack-folder",
                                          *folder_ / "packs",
                                          "--threads",
                                          "1",
                                          "--iterations",
                                          "2",
                                          "--input-len",
                                          "4",
                                          "--output-len",
                                          "9"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunBench(arguments);
  }

  static json RunJson(const std::string& subcommand, std::vector<std::string> more) {
    more.push_back("--json");
    const ProgramResult result = Run(subcommand, more);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out, nullptr, /*allow_exceptions=*/false);
  }

  // Three sequences of twelve tokens, for the tiny model.
  static RoutingTrace Trace() {
    RoutingTrace trace = {.model = "recorded",
                          .num_layers = 2,
                          .num_experts = 4,
                          .experts_per_token = 1,
                          .sequences = {}};
    for (uint16_t sequence = 0; sequence < 3; ++sequence) {
      std::vector<uint16_t>& ids = trace.sequences.emplace_back().expert_ids;
      for (uint16_t token = 0; token < 12; ++token) {
        ids.push_back(static_cast<uint16_t>((token / 3 + sequence) % 4));
        ids.push_back(static_cast<uint16_t>((token * token + sequence) % 4));
      }
    }
    return trace;
  }
  static std::string TraceFile() {
    std::string path = *folder_ / "trace";
    EXPECT_TRUE(WriteRoutingTrace(path, Trace()).ok());
    return path;
  }
};

void ExpectSpread(const json& spread) {
  EXPECT_LE(spread["min"], spread["median"]);
  EXPECT_LE(spread["median"], spread["max"]);
}

TEST_F(OffloadCommands, BenchmarkCountsEveryLookUpOnce) {
  const json result = RunJson(
      "benchmark", {"--expert-capacity", "50%", "--batch-size", "1,3", "--collect-detailed-stats"});
  EXPECT_EQ(result["slots"], 4);
  EXPECT_EQ(result["residency"], 0.5);
  EXPECT_EQ(result["codec"], "none");
  EXPECT_EQ(result["eviction"], "ewma");
  EXPECT_EQ(result["speculation"], "pregate");
  EXPECT_EQ(result["memory_strategy"], "single_async");
  EXPECT_TRUE(result["forced_routing"].is_null());
  ASSERT_EQ(result["rows"].size(), 2);
  for (const json& row : result["rows"]) {
    for (const char* key : {"tokens_per_second",
                            "prefill_tokens_per_second",
                            "hit_rate",
                            "late_hit_rate",
                            "miss_rate",
                            "loaded_bytes_per_token",
                            "link_bytes_per_second",
                            "stall_share"}) {
      ExpectSpread(row[key]);
    }
    const json& details = row["details"];
    uint64_t lookups = 0;
    // On a busy machine one of three sequences may have ended before another began.
    if (details["decode_steps"] > 0) {
      EXPECT_EQ(details["layers"].size(), 2);
    }
    for (const json& layer : details["layers"]) {
      lookups += layer["hits"].get<uint64_t>() + layer["late_hits"].get<uint64_t>() +
                 layer["misses"].get<uint64_t>();
    }
    EXPECT_EQ(row["lookups"], lookups);
    EXPECT_LE(details["predictor"]["correct"], details["predictor"]["predicted"]);
    EXPECT_LE(details["step_seconds"]["p50"], details["step_seconds"]["p90"]);
    EXPECT_LE(details["step_seconds"]["p90"], details["step_seconds"]["p99"]);
  }
  // A single sequence: each step is one of decoding, eight in each turn, and a token needs one
  // expert of each layer.
  const json& details = result["rows"][0]["details"];
  EXPECT_EQ(details["decode_steps"], 16);
  EXPECT_EQ(result["rows"][0]["lookups"], 32);
  const json& shares = details["step_shares"];
  for (const json& share : shares) EXPECT_GE(share, 0);
  EXPECT_THAT(shares["routing_and_dense"].get<double>() + shares["waiting"].get<double>() +
                  shares["expert_compute"].get<double>(),
              DoubleNear(1, 1e-9));
}

TEST_F(OffloadCommands, BenchmarkMissesNothingOnceAllIsResident) {
  const json result =
      RunJson("benchmark", {"--expert-capacity", "100%", "--batch-size", "1", "--no-bound"});
  const json& row = result["rows"][0];
  EXPECT_TRUE(row["bound_tokens_per_second"].is_null());
  EXPECT_TRUE(row["ratio"].is_null());
  EXPECT_FALSE(row.contains("details"));
  EXPECT_EQ(row["lookups"], 32);
  EXPECT_EQ(row["hit_rate"]["min"], 1);
  EXPECT_EQ(row["miss_rate"]["max"], 0);
  EXPECT_EQ(row["late_hit_rate"]["max"], 0);
  EXPECT_EQ(row["loaded_bytes"], 0);
}

TEST_F(OffloadCommands, BenchmarkGoesWhereTheTraceWentAndRecordsIt) {
  const std::string recorded_path = *folder_ / "recorded";
  const json result = RunJson("benchmark",
                              {"--batch-size",
                               "2",
                               "--no-bound",
                               "--routing-trace",
                               TraceFile(),
                               "--record-routing",
                               recorded_path});
  EXPECT_EQ(result["forced_routing"]["model"], "recorded");
  EXPECT_EQ(result["forced_routing"]["sequences"], 3);
  const absl::StatusOr<RoutingTrace> recorded = ReadRoutingTrace(recorded_path);
  ASSERT_TRUE(recorded.ok()) << recorded.status();
  EXPECT_EQ(recorded->model, "tiny");
  ASSERT_EQ(recorded->sequences.size(), 2);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(recorded->sequences[i].id, absl::StrCat("batch2-", i));
    EXPECT_EQ(recorded->sequences[i].num_prompt_tokens, 4);
    EXPECT_EQ(recorded->sequences[i].expert_ids, Trace().sequences[i].expert_ids);
  }
}

TEST_F(OffloadCommands, SayThatRoutingIsForcedAndThePredictorSimulated) {
  for (const char* subcommand : {"benchmark", "compare", "sweep"}) {
    std::vector<std::string> more = {"--routing-trace", TraceFile(), "--simulated-recall", "0.5"};
    const std::string batch_size = std::string(subcommand) == "compare" ? "1" : "1,2";
    more.insert(more.end(), {"--batch-size", batch_size});
    if (std::string(subcommand) == "benchmark") {
      more.insert(more.end(), {"--expert-capacity", "50%"});
    }
    const ProgramResult table = Run(subcommand, more);
    EXPECT_EQ(table.exit_code, 0) << table.err;
    EXPECT_THAT(table.out, HasSubstr("speeds are real, text is not\n")) << subcommand;
    EXPECT_THAT(table.out, HasSubstr("simulated (recall 0.50, horizon 1)")) << subcommand;
    const json result = RunJson(subcommand, more);
    EXPECT_EQ(result["forced_routing"]["simulated_predictor"]["recall"], 0.5) << subcommand;
  }
}

TEST_F(OffloadCommands, ASimulatedPredictorOfFullRecallMissesNoLaterLayer) {
  const json result = RunJson("benchmark",
                              {"--batch-size",
                               "1",
                               "--expert-capacity",
                               "50%",
                               "--no-bound",
                               "--collect-detailed-stats",
                               "--routing-trace",
                               TraceFile(),
                               "--simulated-recall",
                               "1"});
  const json& predictor = result["rows"][0]["details"]["predictor"];
  EXPECT_EQ(predictor["predicted"], 16);
  EXPECT_EQ(predictor["recall"], 1);
  EXPECT_EQ(predictor["precision"], 1);
}

TEST_F(OffloadCommands, RefuseATraceOfAnotherShape) {
  RoutingTrace other = Trace();
  other.num_experts = 8;
  const std::string path = *folder_ / "other";
  ASSERT_TRUE(WriteRoutingTrace(path, other).ok());
  for (const char* subcommand : {"benchmark", "compare", "sweep"}) {
    const ProgramResult result = Run(subcommand, {"--routing-trace", path});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.err,
              "pregate-bench: " + path +
                  ": the routing trace is of 2 layers of 8 experts, top-1; the model has 2 of 4, "
                  "top-1\n");
  }
}

TEST_F(OffloadCommands, RefuseASimulationWithoutATrace) {
  for (const char* subcommand : {"benchmark", "compare", "sweep"}) {
    const ProgramResult result = Run(subcommand, {"--simulated-recall", "0.9"});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, HasSubstr("--simulated-recall needs --routing-trace"));
    EXPECT_EQ(Run(subcommand, {"--simulated-recall", "1.1"}).exit_code, 2);
  }
}

TEST_F(OffloadCommands, CompareMissesNothingWithAllResident) {
  const json result = RunJson("compare", {});
  ASSERT_EQ(result["rows"].size(), 11);
  for (const json& row : result["rows"]) {
    EXPECT_THAT(row["hit_rate"].get<double>() + row["late_hit_rate"].get<double>() +
                    row["miss_rate"].get<double>(),
                DoubleNear(1, 1e-9));
    if (row["control"] != "all_resident") continue;
    EXPECT_EQ(row["hit_rate"], 1);
    EXPECT_EQ(row["loaded_bytes"], 0);
  }
}

TEST_F(OffloadCommands, CompareDrawsWhatItMeasured) {
  const std::string plots = *folder_ / "plots";
  const ProgramResult result = Run("compare",
                                   {"--plot",
                                    plots,
                                    "--simulated-link",
                                    "1536MiB/s,10us",
                                    "--routing-trace",
                                    TraceFile(),
                                    "--simulated-recall",
                                    "0.5"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr(", link 1.5 GiB/s and 10.0 us a copy\n"));
  const std::string rates = ReadFile(plots + "/tokens_per_second.svg");
  for (const char* row : {"none", "pregate", "= oracle", "= simulated (recall 0.50, horizon 1)"}) {
    EXPECT_THAT(rates, HasSubstr(absl::StrCat(">", row, "</text>")));
  }
  const std::string bytes = ReadFile(plots + "/prefetch_bytes.svg");
  EXPECT_THAT(bytes, HasSubstr(">= oracle</text>"));
  EXPECT_THAT(bytes, Not(HasSubstr(">none</text>")));
}

TEST_F(OffloadCommands, SweepSetsEachResidencyBesideItsOwnControl) {
  const json result = RunJson(
      "sweep", {"--residency", "25,100", "--expert-codec", "none,int8", "--batch-size", "1,2"});
  EXPECT_EQ(result["model"], "tiny");
  ASSERT_EQ(result["rows"].size(), 2 * 2 * 3);
  for (size_t i = 0; i < result["rows"].size(); ++i) {
    const json& row = result["rows"][i];
    EXPECT_EQ(row["codec"], i < 6 ? "none" : "int8");
    EXPECT_EQ(row["batch"], i % 6 < 3 ? 1 : 2);
    EXPECT_EQ(row["slots"], i % 3 == 1 ? 2 : 8);
    EXPECT_EQ(row["residency"], i % 3 == 1 ? 0.25 : 1);
    EXPECT_EQ(row["control"], i % 3 == 0 ? json("all_resident") : json());
    EXPECT_EQ(row["runs"], 2);
    ExpectSpread(row["tokens_per_second"]);
    ExpectSpread(row["ratio_to_resident"]);
    if (i % 3 == 0) {
      EXPECT_EQ(row["ratio_to_resident"]["max"], 1);
    }
    EXPECT_GT(row["lookups"], 0);
    EXPECT_THAT(row["hit_rate"].get<double>() + row["late_hit_rate"].get<double>() +
                    row["miss_rate"].get<double>(),
                DoubleNear(1, 1e-9));
    if (i % 3 != 1) {
      EXPECT_EQ(row["miss_rate"], 0);
      EXPECT_EQ(row["loaded_bytes"], 0);
    }
  }
}

TEST_F(OffloadCommands, SweepShowsARowForEachCombination) {
  const TempFolder plots;
  const ProgramResult result = Run(
      "sweep",
      {"--residency", "50", "--expert-codec", "none", "--batch-size", "1", "--plot", plots.path()});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 5) << result.out;
  EXPECT_THAT(ReadFile(plots / "sweep_tiny.svg"), HasSubstr("none, batch 1"));
}

TEST_F(OffloadCommands, RefuseACodecThatIsNotTheSameTwice) {
  for (const char* subcommand : {"compare", "sweep"}) {
    const ProgramResult result = Run(subcommand, {"--expert-codec", "adaptive"});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, HasSubstr("all turns have to compute the same"));
  }
}

TEST_F(OffloadCommands, SweepSaysWhichPartOfAListIsWrong) {
  for (const auto& [flag, list, wrong] :
       {std::array<const char*, 3>{"--residency", "10,101", "'101'"},
        {"--expert-codec", "none,zip", "'zip'"},
        {"--batch-size", "1,", "''"}}) {
    const ProgramResult result = Run("sweep", {flag, list});
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.err, HasSubstr(wrong));
    EXPECT_THAT(result.err, HasSubstr(flag));
  }
}

}  // namespace
}  // namespace pregate
