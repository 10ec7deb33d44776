// pregate-bench as its users run it, on a tiny random model.
#include <algorithm>
#include <cmath>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/bench/bench_program.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

using PregateBench = TinyModelTest;

TEST_F(PregateBench, HelpFitsAScreen) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"--help"},
                                                    {"perplexity", "--help"},
                                                    {"link", "--help"},
                                                    {"lookup", "--help"},
                                                    {"replay", "--help"}}) {
    const ProgramResult result = RunBench(arguments);
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.out, HasSubstr("Usage: pregate-bench"));
    EXPECT_LE(std::count(result.out.begin(), result.out.end(), '\n'), 24) << result.out;
  }
}

TEST_F(PregateBench, SaysInOneLineWhatIsWrong) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{},
        {"perplexity", "--model", Model()},
        {"benchmark", "--model", Model(), "--batch-size", "1,0"},
        {"benchmark", "--model", Model(), "--batchsize", "1"},
        {"link", "--record-bytes", "1MiB,0"},
        {"link", "--record-bytes", "many"},
        {"replay"},
        {"replay", "--trace", "none", "--policy", "mru"},
        {"replay", "--trace", "none", "--predictor", "lru,pregate"},
        {"replay", "--trace", "none", "--capacity", "25%,1GiB"},
        {"replay", "--trace", "none", "--streams", "0"},
        {"replay", "--trace", "none", "--simulated-recall", "1.5"},
        {"replay", "--trace", "none", "--simulated-horizon", "4"}}) {
    const ProgramResult result = RunBench(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.err, MatchesRegex("pregate-bench: [^\n]*\\(see --help\\)\n"));
  }
  const ProgramResult missing =
      RunBench({"perplexity", "--model", Model(), "--text", *folder_ / "none"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_EQ(missing.err,
            "pregate-bench: cannot open " + (*folder_ / "none") + ": No such file or directory\n");
  const ProgramResult too_long = RunBench({"benchmark", "--model", Model(), "--output-len", "33"});
  EXPECT_EQ(too_long.exit_code, 1);
  EXPECT_EQ(too_long.err,
            "pregate-bench: --input-len 32 and --output-len 33 exceed the context of 64 tokens\n");
}

TEST_F(PregateBench, MeasuresPerplexity) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += static_cast<char>('a' + i * i % 26);
  const std::string path = folder_->Write("text", text + "\n\x1e\nshort\n");
  const ProgramResult result =
      RunBench({"perplexity", "--model", Model(), "--text", path, "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["codec"], "none");
  EXPECT_EQ(json["dtype"], "float32");
  EXPECT_EQ(json["context"], 64);
  EXPECT_EQ(json["stride"], 32);
  EXPECT_EQ(json["tokens"], 201 + 1 + 6 + 1) << "a byte is a token; each document has an end";
  EXPECT_EQ(json["bytes"], 201 + 2 + 6);
  const double nats = json["nll_nats"];
  EXPECT_NEAR(json["bits_per_byte"], nats / std::log(2.0) / 209, 1e-9);
  EXPECT_NEAR(json["perplexity"], std::exp(nats / 209), 1e-6);
  // Random logits of variance 1 cost half a nat more than 300 equally likely tokens.
  EXPECT_NEAR(nats / 209, std::log(300.0) + 0.5, 0.4);

  const ProgramResult short_context =
      RunBench({"perplexity", "--model", Model(), "--text", path, "--max_context", "16", "--json"});
  ASSERT_EQ(short_context.exit_code, 0) << short_context.err;
  EXPECT_EQ(nlohmann::json::parse(short_context.out)["tokens"], json["tokens"]);
  EXPECT_NE(nlohmann::json::parse(short_context.out)["nll_nats"], json["nll_nats"]);
}

TEST_F(PregateBench, MeasuresLookUpsAndPredictors) {
  std::vector<std::string> arguments = {
      "lookup", "--layers", "3", "--experts", "6", "--top-k", "2", "--iterations", "5"};
  const ProgramResult table = RunBench(arguments);
  ASSERT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("predict adaptive"));
  arguments.emplace_back("--json");
  const ProgramResult result = RunBench(arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["top_k"], 2);
  EXPECT_GT(json["layer_ns"]["median"], 0);
  EXPECT_GT(json["prediction_ns"]["pregate"]["min"], 0);
}

TEST_F(PregateBench, MeasuresDecodingBesideItsBound) {
  const std::vector<std::string> arguments = {"benchmark",
                                              "--model",
                                              Model(),
                                              "--batch-size",
                                              "1,3",
                                              "--iterations",
                                              "2",
                                              "--input-len",
                                              "4",
                                              "--output-len",
                                              "6"};
  const ProgramResult table = RunBench(arguments);
  ASSERT_EQ(table.exit_code, 0) << table.err;
  EXPECT_EQ(std::count(table.out.begin(), table.out.end(), '\n'), 3);

  std::vector<std::string> with_json = arguments;
  with_json.push_back("--json");
  const ProgramResult result = RunBench(with_json);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  ASSERT_EQ(json["rows"].size(), 2u);
  EXPECT_EQ(json["rows"][1]["batch"], 3);
  for (const auto& row : json["rows"]) {
    for (const char* key : {"ratio", "tokens_per_second", "bound_tokens_per_second"}) {
      EXPECT_GT(row[key]["min"], 0);
      EXPECT_LE(row[key]["min"], row[key]["median"]);
      EXPECT_LE(row[key]["median"], row[key]["max"]);
    }
  }
}

// 4 layers of 8 experts, top-1: expert e of a layer is followed by e + 1, so that history tells
// what comes.
nlohmann::json TraceJson() {
  nlohmann::json sequences = nlohmann::json::array();
  for (int sequence = 0; sequence < 3; ++sequence) {
    nlohmann::json tokens = nlohmann::json::array();
    for (int token = 0; token < 60; ++token) {
      nlohmann::json layers = nlohmann::json::array();
      for (int layer = 0; layer < 4; ++layer) {
        layers.push_back({((token * token) / 3 + sequence + layer) % 8});
      }
      tokens.push_back(layers);
    }
    sequences.push_back({{"id", sequence}, {"experts", tokens}});
  }
  return {{"model", "made <up>"},
          {"num_layers", 4},
          {"num_experts", 8},
          {"top_k", 1},
          {"sequences", sequences}};
}

TEST(PregateBenchReplay, ReplaysPlotsAndPrintsJson) {
  const TempFolder folder;
  const ProgramResult result = RunBench({"replay",
                                         "--trace",
                                         folder.Write("trace.json", TraceJson().dump()),
                                         "--capacity",
                                         "25%,16",
                                         "--streams",
                                         "1,2",
                                         "--policy",
                                         "all",
                                         "--predictor",
                                         "all",
                                         "--simulated-recall",
                                         "1",
                                         "--simulated-horizon",
                                         "1,3",
                                         "--plot",
                                         folder / "plots",
                                         "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["trace"]["tokens"], 180);
  std::map<std::string, double> hit_rates;  // with lru, at 8 slots
  for (const auto& one : json["results"]) {
    EXPECT_EQ(one["lookups"], one["hits"].get<int>() + one["misses"].get<int>());
    if (one["streams"] != 1 || one["policy"] != "lru" || one["slots"] != 8) continue;
    hit_rates[one.value("predictor", "none")] = one["hit_rate"];
    if (one.contains("predictor")) {
      EXPECT_LE(one["useful"].get<int>() + one["wasted"].get<int>(), one["prefetched"]);
    }
  }
  EXPECT_THAT(hit_rates,
              UnorderedElementsAre(Key("none"),
                                   Key("layer_minus_1"),
                                   Key("multi_layer"),
                                   Key("adaptive"),
                                   Key("simulated (recall 1.00, horizon 1)"),
                                   Key("simulated (recall 1.00, horizon 3)")));
  EXPECT_EQ(json["results"].size(), 2u * 2 * 6 * 6);
  EXPECT_LT(hit_rates["none"], hit_rates["layer_minus_1"]);
  EXPECT_LT(hit_rates["layer_minus_1"], hit_rates["simulated (recall 1.00, horizon 1)"]);
  EXPECT_EQ(json["predictors"].size(), 2u * (3 + 1 + 3));
  for (const auto& one : json["predictors"]) {
    const bool is_simulated = one["simulated_predictor"].is_object();
    EXPECT_EQ(is_simulated, one["predictor"].get<std::string>().find("simulated") == 0);
    if (is_simulated) {
      EXPECT_EQ(one["recall_at_k"], 1);
    }
    EXPECT_LE(one["recall_at_k"], one["recall_at_2k"]);
  }
  for (const char* name : {"routing", "policies_1", "predictors_1", "prefetch_2"}) {
    EXPECT_THAT(ReadFile(folder / "plots/" + name + ".svg"),
                AllOf(StartsWith("<svg "), HasSubstr("made &lt;up&gt;"), EndsWith("</svg>\n")))
        << name;
  }
}

TEST(PregateBenchReplay, PrintsTables) {
  const TempFolder folder;
  const std::string trace = folder.Write("trace.json", TraceJson().dump());
  const ProgramResult plain = RunBench({"replay", "--trace", trace});
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_THAT(plain.out, Not(HasSubstr("predictor")));
  EXPECT_EQ(std::count(plain.out.begin(), plain.out.end(), '\n'), 1 + 2 * 3 + 1);
  const ProgramResult result =
      RunBench({"replay", "--trace", trace, "--simulated-recall", "0.5", "--threads", "2"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("simulated (recall 0.50, horizon 1)"));
  EXPECT_THAT(result.out, HasSubstr("simulated: the true routing, degraded"));
  EXPECT_EQ(result.err, "");
}

TEST(PregateBenchReplay, SaysInOneLineWhyItCouldNot) {
  const TempFolder folder;
  const std::string trace = folder.Write("trace.json", TraceJson().dump());
  const ProgramResult result = RunBench({"replay", "--trace", trace, "--plot", trace + "/plots"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err,
            "pregate-bench: cannot make the folder " + trace + "/plots: Not a directory\n");
  EXPECT_EQ(RunBench({"replay", "--trace", trace, "--simulated-horizon", "2"}).err,
            "pregate-bench: --simulated-horizon needs --simulated-recall\n");
}

TEST_F(PregateBench, LinkShowsARowForEachSize) {
  const std::vector<std::string> arguments = {"link",
                                              "--device",
                                              "cpu",
                                              "--record-bytes",
                                              "64KiB,100KiB",
                                              "--host-bytes",
                                              "8MiB",
                                              "--iterations",
                                              "2",
                                              "--simulated-link",
                                              "4GiB/s,1us"};
  const ProgramResult table = RunBench(arguments);
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, AllOf(HasSubstr("64.0 KiB"), HasSubstr("100.0 KiB")));
  std::vector<std::string> as_json = arguments;
  as_json.push_back("--json");
  const nlohmann::json json = nlohmann::json::parse(RunBench(as_json).out);
  ASSERT_EQ(json["sizes"].size(), 2u);
  for (const nlohmann::json& size : json["sizes"]) {
    EXPECT_LE(size["demanded_gb_per_second"]["max"], 4.3) << "the link's own";
  }
}

TEST_F(PregateBench, LinkNamesTheDeviceThatIsNotThere) {
  const ProgramResult result = RunBench({"link", "--device", "tpu"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err, "pregate-bench: device: 'tpu' is not one of auto, cpu, cuda, cuda:N\n");
}

}  // namespace
}  // namespace pregate
