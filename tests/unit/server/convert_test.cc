#include "server/convert.h"

#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "server/status.h"
#include "tests/support/fake_engine.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kRandomSeed = 4711;

constexpr char kTemplate[] =
    "{% for m in messages %}{% if m.role == 'bad' %}{{ raise_exception('no bad roles') }}{% endif "
    "%}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

// The fields that a status finds fault with.
std::vector<std::string> Fields(const absl::Status& status) {
  std::vector<std::string> fields;
  const auto payload = status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  if (!payload.has_value()) return fields;
  google::rpc::BadRequest bad_request;
  EXPECT_TRUE(bad_request.ParseFromString(std::string(*payload)));
  for (const auto& violation : bad_request.field_violations()) {
    EXPECT_NE(violation.description(), "");
    fields.push_back(violation.field());
  }
  return fields;
}

class ConvertTest : public ::testing::Test {
 protected:
  static FakeEngineOptions Options() {
    FakeEngineOptions options;
    options.eos_token_ids = {kEndTokenId};
    options.chat_template = kTemplate;
    return options;
  }

  absl::StatusOr<Generation> Convert(const v1::GenerateRequest& wire) {
    return ConvertRequest(wire, std::nullopt, kRandomSeed, fake_.engine());
  }
  static v1::GenerateRequest Valid() {
    v1::GenerateRequest wire;
    wire.set_prompt("the");
    return wire;
  }

  const Logger logger_;
  FakeEngine fake_{Options(), logger_};
};

TEST_F(ConvertTest, TakesEveryField) {
  v1::GenerateRequest wire = Valid();
  wire.set_model("fake");
  wire.set_request_id("id-1");
  wire.set_n(1);
  wire.set_priority(-10);
  v1::Sampling& sampling = *wire.mutable_sampling();
  sampling.set_temperature(0.5);
  sampling.set_top_k(10);
  sampling.set_top_p(0.75);
  sampling.set_seed(99);
  sampling.set_logprobs(20);
  wire.mutable_stopping()->set_max_tokens(5);
  wire.mutable_stopping()->add_stop("one");
  wire.mutable_stopping()->add_stop("two");
  wire.mutable_stopping()->add_stop_token_ids(7);
  const TimePoint deadline = TimePoint() + std::chrono::hours(5);
  const absl::StatusOr<Generation> generation =
      ConvertRequest(wire, deadline, kRandomSeed, fake_.engine());
  ASSERT_TRUE(generation.ok()) << generation.status();
  const Request& request = generation->request;
  EXPECT_EQ(request.id, "id-1");
  EXPECT_EQ(request.prompt_token_ids, fake_.Encode("the"));
  EXPECT_EQ(request.deadline, deadline);
  EXPECT_EQ(request.priority, -10);
  EXPECT_EQ(request.sampling.temperature, 0.5F);
  EXPECT_EQ(request.sampling.top_k, 10u);
  EXPECT_EQ(request.sampling.top_p, 0.75F);
  EXPECT_EQ(request.sampling.seed, 99u);
  EXPECT_EQ(request.sampling.logprobs, 20u);
  EXPECT_EQ(request.stopping.max_tokens, 5u);
  EXPECT_THAT(request.stopping.stop_token_ids, ElementsAre(7, kEndTokenId));
  EXPECT_THAT(generation->stop, ElementsAre("one", "two"));
}

TEST_F(ConvertTest, FillsInWhatIsUnset) {
  const absl::StatusOr<Generation> generation = Convert(Valid());
  ASSERT_TRUE(generation.ok()) << generation.status();
  const Request& request = generation->request;
  EXPECT_EQ(request.sampling.temperature, 1);
  EXPECT_EQ(request.sampling.top_k, 0u);
  EXPECT_EQ(request.sampling.top_p, 1);
  EXPECT_EQ(request.sampling.seed, kRandomSeed);
  EXPECT_FALSE(request.sampling.logprobs.has_value());
  EXPECT_EQ(request.stopping.max_tokens, 256 - fake_.Encode("the").size());
  EXPECT_THAT(request.stopping.stop_token_ids, ElementsAre(kEndTokenId));
  EXPECT_FALSE(request.deadline.has_value());
}

TEST_F(ConvertTest, IgnoreEosLeavesTheModelsIdsOut) {
  v1::GenerateRequest wire = Valid();
  wire.mutable_stopping()->set_ignore_eos(true);
  wire.mutable_stopping()->add_stop_token_ids(3);
  EXPECT_THAT(Convert(wire)->request.stopping.stop_token_ids, ElementsAre(3));
}

TEST_F(ConvertTest, TakesTokenIdsAsTheyAre) {
  v1::GenerateRequest wire;
  for (const uint32_t id : {0, 299, 5}) wire.mutable_token_ids()->add_ids(id);
  EXPECT_THAT(Convert(wire)->request.prompt_token_ids, ElementsAre(0, 299, 5));
}

TEST_F(ConvertTest, RendersAConversation) {
  v1::GenerateRequest wire;
  v1::Message& message = *wire.mutable_messages()->add_messages();
  message.set_role("user");
  message.set_content("the");
  EXPECT_EQ(fake_.Decode(Convert(wire)->request.prompt_token_ids), "<user>the<assistant>");
}

TEST_F(ConvertTest, AModelWithoutATemplateRefusesConversations) {
  FakeEngine plain({}, logger_);
  v1::GenerateRequest wire;
  wire.mutable_messages()->add_messages()->set_role("user");
  const absl::Status status =
      ConvertRequest(wire, std::nullopt, kRandomSeed, plain.engine()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), "NO_CHAT_TEMPLATE");
}

TEST_F(ConvertTest, AnotherModelIsNotFound) {
  v1::GenerateRequest wire = Valid();
  wire.set_model("secret-name");
  const absl::Status status = Convert(wire).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(status), "MODEL_NOT_FOUND");
  EXPECT_EQ(status.message(), "no such model here: this server serves fake");
}

TEST_F(ConvertTest, NamesTheFieldOfEveryBadInput) {
  using Wire = v1::GenerateRequest;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::pair<const char*, std::function<void(Wire&)>> cases[] = {
      // The input.
      {"prompt", [](Wire& w) { w.clear_prompt(); }},
      {"prompt", [](Wire& w) { w.set_prompt(""); }},
      {"prompt", [](Wire& w) { w.set_prompt(std::string(256, 'x')); }},
      {"prompt", [](Wire& w) { w.set_prompt(std::string(64 * 256 + 1, 'x')); }},
      {"token_ids.ids", [](Wire& w) { w.mutable_token_ids(); }},
      {"token_ids.ids", [](Wire& w) { w.mutable_token_ids()->add_ids(300); }},
      {"token_ids.ids", [](Wire& w) { w.mutable_token_ids()->add_ids(0xffffffff); }},
      {"messages.messages", [](Wire& w) { w.mutable_messages(); }},
      {"messages", [](Wire& w) { w.mutable_messages()->add_messages()->set_role("bad"); }},
      {"messages",
       [](Wire& w) {
         w.mutable_messages()->add_messages()->set_role("user");
         w.mutable_messages()->set_tools_json("{not json");
       }},
      {"messages.messages",
       [](Wire& w) {
         w.mutable_messages()->add_messages()->set_content(std::string(64 * 256 + 1, 'x'));
       }},
      {"request_id", [](Wire& w) { w.set_request_id(std::string(129, 'x')); }},
      // Sampling.
      {"sampling.temperature", [](Wire& w) { w.mutable_sampling()->set_temperature(-0.1F); }},
      {"sampling.temperature", [](Wire& w) { w.mutable_sampling()->set_temperature(kNan); }},
      {"sampling.temperature", [](Wire& w) { w.mutable_sampling()->set_temperature(kInfinity); }},
      {"sampling.top_p", [](Wire& w) { w.mutable_sampling()->set_top_p(2); }},
      {"sampling.top_p", [](Wire& w) { w.mutable_sampling()->set_top_p(0); }},
      {"sampling.top_p", [](Wire& w) { w.mutable_sampling()->set_top_p(-1); }},
      {"sampling.top_p", [](Wire& w) { w.mutable_sampling()->set_top_p(kNan); }},
      {"sampling.logprobs", [](Wire& w) { w.mutable_sampling()->set_logprobs(21); }},
      // Stopping.
      {"stopping.max_tokens", [](Wire& w) { w.mutable_stopping()->set_max_tokens(0); }},
      {"stopping.max_tokens", [](Wire& w) { w.mutable_stopping()->set_max_tokens(256); }},
      {"stopping.max_tokens", [](Wire& w) { w.mutable_stopping()->set_max_tokens(0xffffffff); }},
      {"stopping.stop[1]",
       [](Wire& w) {
         w.mutable_stopping()->add_stop("x");
         w.mutable_stopping()->add_stop("");
       }},
      {"stopping.stop[0]", [](Wire& w) { w.mutable_stopping()->add_stop(std::string(257, 'x')); }},
      {"stopping.stop",
       [](Wire& w) {
         for (int i = 0; i < 9; ++i) w.mutable_stopping()->add_stop("x");
       }},
      {"stopping.stop_token_ids[0]",
       [](Wire& w) { w.mutable_stopping()->add_stop_token_ids(300); }},
      {"stopping.stop_token_ids",
       [](Wire& w) {
         for (int i = 0; i < 65; ++i) w.mutable_stopping()->add_stop_token_ids(1);
       }},
      // What there is not yet.
      {"n", [](Wire& w) { w.set_n(2); }},
      {"n", [](Wire& w) { w.set_n(0); }},
      {"priority", [](Wire& w) { w.set_priority(-11); }},
      {"priority", [](Wire& w) { w.set_priority(std::numeric_limits<int32_t>::max()); }},
      {"send_accepted", [](Wire& w) { w.set_send_accepted(true); }},
      {"sampling.min_p", [](Wire& w) { w.mutable_sampling()->set_min_p(0); }},
      {"sampling.repetition_penalty",
       [](Wire& w) { w.mutable_sampling()->set_repetition_penalty(1.1F); }},
      {"sampling.presence_penalty",
       [](Wire& w) { w.mutable_sampling()->set_presence_penalty(0.5F); }},
      {"sampling.frequency_penalty",
       [](Wire& w) { w.mutable_sampling()->set_frequency_penalty(0.5F); }},
      {"sampling.logit_bias",
       [](Wire& w) { (*w.mutable_sampling()->mutable_logit_bias())[1] = 1; }},
      {"stopping.min_tokens", [](Wire& w) { w.mutable_stopping()->set_min_tokens(1); }},
  };
  for (const auto& [field, spoil] : cases) {
    v1::GenerateRequest wire = Valid();
    spoil(wire);
    const absl::Status status = Convert(wire).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field << ": " << status;
    EXPECT_EQ(ReasonOf(status), "INVALID_FIELD") << field;
    EXPECT_THAT(Fields(status), ElementsAre(field)) << status;
  }
}

TEST_F(ConvertTest, NamesAllFieldsAtOnce) {
  v1::GenerateRequest wire = Valid();
  wire.mutable_sampling()->set_top_p(2);
  wire.mutable_sampling()->set_temperature(-1);
  wire.set_n(3);
  EXPECT_THAT(Fields(Convert(wire).status()),
              ElementsAre("n", "sampling.temperature", "sampling.top_p"));
  EXPECT_EQ(Convert(wire).status().message(),
            "n: is not supported by this version; "
            "sampling.temperature: -1 is not a number of at least 0; "
            "sampling.top_p: 2 is not in (0, 1]");
}

TEST_F(ConvertTest, AcceptsTheLimitsThemselves) {
  v1::GenerateRequest wire;
  wire.set_prompt(std::string(255, 'x'));  // a token each
  wire.set_request_id(std::string(128, 'x'));
  wire.mutable_sampling()->set_temperature(0);
  wire.mutable_sampling()->set_top_p(1);
  wire.mutable_sampling()->set_logprobs(20);
  wire.mutable_stopping()->set_max_tokens(1);
  for (int i = 0; i < 8; ++i) wire.mutable_stopping()->add_stop(std::string(256, 'x'));
  for (int i = 0; i < 64; ++i) wire.mutable_stopping()->add_stop_token_ids(299);
  const absl::StatusOr<Generation> generation = Convert(wire);
  EXPECT_TRUE(generation.ok()) << generation.status();
}

TEST_F(ConvertTest, ATemplateBeyondItsBoundsIsTheConversationsFault) {
  FakeEngineOptions options;
  options.chat_template =
      "{% for i in range(2000) %}{% for j in range(2000) %}{% endfor %}{% endfor %}";
  FakeEngine endless(options, logger_);
  v1::GenerateRequest wire;
  wire.mutable_messages()->add_messages()->set_role("user");
  const absl::Status status =
      ConvertRequest(wire, std::nullopt, kRandomSeed, endless.engine()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(Fields(status), ElementsAre("messages"));
}

TEST_F(ConvertTest, DescribesTheModel) {
  const v1::Model model = ConvertModel(fake_.engine());
  EXPECT_EQ(model.name(), "fake");
  EXPECT_EQ(model.family(), "fake_family");
  EXPECT_EQ(model.dtype(), "float32");
  EXPECT_EQ(model.vocab_size(), 300u);
  EXPECT_EQ(model.max_context(), 256u);
  EXPECT_EQ(model.num_layers(), 2u);
  EXPECT_EQ(model.num_experts(), 8u);
  EXPECT_EQ(model.num_experts_per_token(), 1u);
  EXPECT_EQ(model.num_parameters(), 12345u);
  EXPECT_THAT(model.eos_token_ids(), ElementsAre(kEndTokenId));
  EXPECT_TRUE(model.has_chat_template());
}

TEST_F(ConvertTest, ALoggedIdIsPrintable) {
  EXPECT_EQ(LoggableId("run-7/a"), "run-7/a");
  EXPECT_EQ(LoggableId("a b\n\x1b[31m\x7f"
                       "é"),
            "a?b??[31m???");
}

}  // namespace
}  // namespace pregate
