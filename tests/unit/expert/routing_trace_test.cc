#include "core/expert/routing_trace.h"

#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// 2 layers of 5 experts, top-2; a prompt of 2 tokens and an answer of one, and an empty sequence.
RoutingTrace Small() {
  return {
      .model = "small",
      .num_layers = 2,
      .num_experts = 5,
      .experts_per_token = 2,
      .sequences = {
          {.id = "a", .num_prompt_tokens = 2, .expert_ids = {0, 1, 4, 3, 2, 0, 1, 3, 4, 0, 0, 1}},
          {.id = "empty", .num_prompt_tokens = 0, .expert_ids = {}}}};
}

void ExpectSmall(const RoutingTrace& trace, const std::string& bytes) {
  EXPECT_EQ(SerializeRoutingTrace(trace), bytes);
  EXPECT_EQ(trace.model, "small");
  ASSERT_EQ(trace.sequences.size(), 2u);
  EXPECT_EQ(trace.sequences[0].num_prompt_tokens, 2u);
  EXPECT_EQ(trace.num_tokens(trace.sequences[0]), 3u);
  EXPECT_EQ(trace.num_tokens(trace.sequences[1]), 0u);
  EXPECT_THAT(trace.ExpertsOf(trace.sequences[0], 1, 1), ElementsAre(1, 3));
}

TEST(RoutingTrace, ComesBackAsItWas) {
  const std::string bytes = SerializeRoutingTrace(Small());
  const absl::StatusOr<RoutingTrace> trace = ParseRoutingTrace(bytes);
  ASSERT_TRUE(trace.ok()) << trace.status();
  ExpectSmall(*trace, bytes);
  EXPECT_LT(bytes.size(), 100u) << "a byte for each expert";
}

TEST(RoutingTrace, TakesTwoBytesOnlyForManyExperts) {
  RoutingTrace trace = Small();
  const size_t small = SerializeRoutingTrace(trace).size();
  trace.num_experts = 300;
  trace.sequences[0].expert_ids[0] = 299;
  const std::string bytes = SerializeRoutingTrace(trace);
  EXPECT_EQ(bytes.size(), small + 12);
  EXPECT_EQ(ParseRoutingTrace(bytes)->sequences[0].expert_ids[0], 299);
}

TEST(RoutingTrace, ForcesTokensBeyondItsEndFromTheStart) {
  RoutingTrace trace = {
      .model = "small", .num_layers = 2, .num_experts = 4, .experts_per_token = 1, .sequences = {}};
  trace.sequences.emplace_back().expert_ids = {0, 1};
  trace.sequences.emplace_back().expert_ids = {2, 3, 3, 2};
  EXPECT_THAT(trace.ForcedExperts(0, 5, 1), ElementsAre(1));
  EXPECT_THAT(trace.ForcedExperts(1, 1, 0), ElementsAre(3));
  EXPECT_THAT(trace.ForcedExperts(3, 2, 1), ElementsAre(3)) << "token 0 of sequence 1";
}

TEST(RoutingTrace, IsAFile) {
  const TempFolder folder;
  const std::string path = folder / "trace";
  ASSERT_TRUE(WriteRoutingTrace(path, Small()).ok());
  const absl::StatusOr<RoutingTrace> trace = ReadRoutingTrace(path);
  ASSERT_TRUE(trace.ok()) << trace.status();
  ExpectSmall(*trace, SerializeRoutingTrace(Small()));
  EXPECT_EQ(ReadRoutingTrace(folder / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(WriteRoutingTrace(folder / "no/folder", Small()).code(), absl::StatusCode::kNotFound);
  folder.Write("damaged", "PGROUTES and nothing else");
  EXPECT_THAT(std::string(ReadRoutingTrace(folder / "damaged").status().message()),
              HasSubstr("damaged: "));
}

TEST(RoutingTrace, EveryDamageIsFound) {
  const std::string bytes = SerializeRoutingTrace(Small());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ParseRoutingTrace(bytes.substr(0, size)).ok()) << size;
  }
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(ParseRoutingTrace(damaged).ok()) << bit;
  }
}

TEST(RoutingTrace, SaysWhatIsWrongAndWhere) {
  RoutingTrace trace = Small();
  trace.sequences[0].expert_ids[3] = 5;
  EXPECT_THAT(std::string(ParseRoutingTrace(SerializeRoutingTrace(trace)).status().message()),
              HasSubstr("expert 5 at offset 53 is not one of 5"));
  trace = Small();
  trace.experts_per_token = 6;
  EXPECT_THAT(std::string(ParseRoutingTrace(SerializeRoutingTrace(trace)).status().message()),
              HasSubstr("experts_per_token at offset 20 is 6, not 1 to 5"));
}

TEST(RoutingRecorder, CollectsTokensBySequence) {
  RoutingRecorder recorder("small", 2, 5, 2, 1000);
  recorder.Record(7, true, {0, 1, 4, 3});
  recorder.Record(9, false, {1, 0, 0, 1});
  recorder.Record(7, false, {2, 0, 1, 3});
  const RoutingTrace trace = recorder.Read();
  ASSERT_EQ(trace.sequences.size(), 2u);
  EXPECT_EQ(trace.sequences[0].id, "7");
  EXPECT_EQ(trace.sequences[0].num_prompt_tokens, 1u);
  EXPECT_THAT(trace.sequences[0].expert_ids, ElementsAre(0, 1, 4, 3, 2, 0, 1, 3));
  EXPECT_THAT(trace.sequences[1].expert_ids, ElementsAre(1, 0, 0, 1));
  recorder.Clear();
  EXPECT_TRUE(recorder.Read().sequences.empty());
}

TEST(RoutingRecorder, APromptIsWhatComesFirst) {
  RoutingRecorder recorder("small", 1, 5, 1, 1000);
  for (const bool is_prompt : {true, true, false, true, false}) recorder.Record(1, is_prompt, {0});
  EXPECT_EQ(recorder.Read().sequences[0].num_prompt_tokens, 2u);
}

TEST(RoutingRecorder, ForgetsTheOldestWhenItIsFull) {
  RoutingRecorder recorder("small", 2, 5, 2, 1000);
  for (uint64_t sequence = 0; sequence < 50; ++sequence) {
    recorder.Record(sequence, false, {0, 1, 2, 3});
  }
  const RoutingTrace trace = recorder.Read();
  ASSERT_GE(trace.sequences.size(), 2u);
  ASSERT_LE(trace.sequences.size(), 5u) << "a short one takes memory, too";
  EXPECT_EQ(trace.sequences.front().id, absl::StrCat(50 - trace.sequences.size()));
  EXPECT_EQ(trace.sequences.back().id, "49");
  for (int token = 0; token < 400; ++token) recorder.Record(49, false, {0, 1, 2, 3});
  for (const RoutingTrace::Sequence& sequence : recorder.Read().sequences) {
    EXPECT_LE(sequence.expert_ids.size(), 500u) << "one that is too long by itself goes too";
  }
}

TEST(RoutingRecorder, MayBeReadWhileItRecords) {
  RoutingRecorder recorder("small", 2, 5, 2, 10'000);
  std::thread writer([&] {
    for (uint64_t i = 0; i < 500; ++i) recorder.Record(i % 7, false, {0, 1, 2, 3});
  });
  for (int i = 0; i < 50; ++i) {
    for (const RoutingTrace::Sequence& sequence : recorder.Read().sequences) {
      EXPECT_EQ(sequence.expert_ids.size() % 4, 0u);
    }
  }
  writer.join();
  EXPECT_EQ(recorder.Read().sequences.size(), 7u);
}

}  // namespace
}  // namespace pregate
