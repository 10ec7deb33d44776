#include "core/engine/request.h"

#include <functional>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace pregate {
namespace {

constexpr uint32_t kVocabSize = 100;
constexpr uint32_t kMaxContext = 16;

Request Valid() {
  Request request;
  request.prompt_token_ids = {0, 99};
  request.stopping = {.max_tokens = 14, .stop_token_ids = {5}};
  return request;
}

TEST(ValidateRequest, AcceptsTheLimitsThemselves) {
  Request request = Valid();
  request.sampling = {.temperature = 0, .top_k = 1u << 31, .top_p = 1, .logprobs = kMaxLogprobs};
  request.priority = kMaxPriority;
  EXPECT_TRUE(ValidateRequest(request, kVocabSize, kMaxContext).ok());
  request.priority = -kMaxPriority;
  request.sampling = {.temperature = 1e30f, .top_p = std::numeric_limits<float>::min()};
  EXPECT_TRUE(ValidateRequest(request, kVocabSize, kMaxContext).ok());
}

struct Invalid {
  std::string name;
  std::function<void(Request&)> change;
  std::string message;
};

class ValidateRequestTest : public ::testing::TestWithParam<Invalid> {};

TEST_P(ValidateRequestTest, NamesWhatIsWrongAndTheLimit) {
  Request request = Valid();
  GetParam().change(request);
  const absl::Status status = ValidateRequest(request, kVocabSize, kMaxContext);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    All,
    ValidateRequestTest,
    ::testing::Values(
        Invalid{"PriorityTooLow",
                [](Request& r) { r.priority = -11; },
                "priority is -11: it is at least -10 and at most 10"},
        Invalid{"PriorityTooHigh",
                [](Request& r) { r.priority = 11; },
                "priority is 11: it is at least -10 and at most 10"},
        Invalid{"EmptyPrompt",
                [](Request& r) { r.prompt_token_ids.clear(); },
                "the prompt is empty: it has at least one token"},
        Invalid{"PromptToken",
                [](Request& r) { r.prompt_token_ids[1] = 100; },
                "prompt_token_ids[1] is 100: the vocabulary has 100 tokens"},
        Invalid{"StopToken",
                [](Request& r) {
                  r.stopping.stop_token_ids = {1, 4000000000};
                },
                "stop_token_ids[1] is 4000000000: the vocabulary has 100 tokens"},
        Invalid{"NoTokens",
                [](Request& r) { r.stopping.max_tokens = 0; },
                "max_tokens is 0: it is at least 1"},
        Invalid{"OverTheContext",
                [](Request& r) { r.stopping.max_tokens = 15; },
                "a prompt of 2 tokens and max_tokens of 15 exceed the context of 16 tokens"},
        Invalid{"FarOverTheContext",
                [](Request& r) { r.stopping.max_tokens = 4294967295; },
                "a prompt of 2 tokens and max_tokens of 4294967295 exceed the context of 16 "
                "tokens"},
        Invalid{"NegativeTemperature",
                [](Request& r) { r.sampling.temperature = -0.5; },
                "temperature is -0.5: it is finite and at least 0"},
        Invalid{"InfiniteTemperature",
                [](Request& r) { r.sampling.temperature = std::numeric_limits<float>::infinity(); },
                "temperature is inf: it is finite and at least 0"},
        Invalid{
            "NanTemperature",
            [](Request& r) { r.sampling.temperature = std::numeric_limits<float>::quiet_NaN(); },
            "temperature is nan: it is finite and at least 0"},
        Invalid{"TopPOfTwo",
                [](Request& r) { r.sampling.top_p = 2; },
                "top_p is 2: it is above 0 and at most 1"},
        Invalid{"TopPOfZero",
                [](Request& r) { r.sampling.top_p = 0; },
                "top_p is 0: it is above 0 and at most 1"},
        Invalid{"NanTopP",
                [](Request& r) { r.sampling.top_p = std::numeric_limits<float>::quiet_NaN(); },
                "top_p is nan: it is above 0 and at most 1"},
        Invalid{"Logprobs",
                [](Request& r) { r.sampling.logprobs = 21; },
                "logprobs is 21: it is at most 20"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace pregate
