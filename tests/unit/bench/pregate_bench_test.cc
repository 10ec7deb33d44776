// pregate-bench as its users run it, on a tiny random model.
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/bench/bench_program.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

using PregateBench = TinyModelTest;

TEST_F(PregateBench, HelpFitsAScreen) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--help"}, {"perplexity", "--help"}, {"lookup", "--help"}}) {
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
        {"benchmark", "--model", Model(), "--batchsize", "1"}}) {
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

}  // namespace
}  // namespace pregate
