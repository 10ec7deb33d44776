// What Generate and Complete answer.
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/test_server.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

std::vector<uint32_t> Ids(const v1::Choice& choice) {
  return {choice.token_ids().begin(), choice.token_ids().end()};
}

v1::CompleteResponse Complete(TestServer& server, const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  v1::CompleteResponse response;
  const grpc::Status status = server.inference().Complete(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.choices_size(), 1);
  return response;
}

TEST(GenerateTest, StreamsWhatTheModelSays) {
  TestServer server;
  const Streamed streamed = Generate(server, Ask("Say something", 20));
  ASSERT_TRUE(streamed.status.ok()) << streamed.status.error_message();
  const std::vector<uint32_t> prompt = server.fake().Encode("Say something");
  Sampling greedy;
  greedy.temperature = 0;
  std::vector<uint32_t> expected;
  for (const GeneratedToken& token : server.runner().Answer(prompt, greedy, 20))
    expected.push_back(token.token_id);
  EXPECT_EQ(Ids(streamed.choice), expected);
  EXPECT_EQ(streamed.choice.text(), server.fake().Decode(expected));
  EXPECT_EQ(streamed.choice.finished().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(streamed.summary.usage().prompt_tokens(), prompt.size());
  EXPECT_EQ(streamed.summary.usage().completion_tokens(), 20u);
  const ExpertUsage usage = server.runner().UsageOf(0);
  EXPECT_GT(usage.misses, 0u);
  EXPECT_EQ(streamed.summary.expert().hits(), usage.hits);
  EXPECT_EQ(streamed.summary.expert().late_hits(), usage.late_hits);
  EXPECT_EQ(streamed.summary.expert().misses(), usage.misses);
  EXPECT_EQ(streamed.summary.expert().loaded_bytes(), usage.loaded_bytes);
  EXPECT_EQ(streamed.summary.timings().expert_stall_seconds(), usage.stall_seconds);
  // Deltas, then Finished, then Summary, each of the two once.
  const size_t num_events = streamed.events.size();
  ASSERT_GE(num_events, 3u);
  for (size_t i = 0; i + 2 < num_events; ++i) EXPECT_TRUE(streamed.events[i].has_delta());
  EXPECT_TRUE(streamed.events[num_events - 2].has_finished());
  EXPECT_TRUE(streamed.events[num_events - 1].has_summary());
}

TEST(GenerateTest, AnswersARepeatedPromptTheSameWayWithoutComputingAllOfIt) {
  TestServer server;
  const Streamed first = Generate(server, Ask("Say something", 20));
  const Streamed again = Generate(server, Ask("Say something", 20));
  ASSERT_TRUE(again.status.ok()) << again.status.error_message();
  EXPECT_EQ(first.summary.usage().cached_prompt_tokens(), 0u);
  EXPECT_GT(again.summary.usage().cached_prompt_tokens(), 0u);
  EXPECT_LT(again.summary.usage().cached_prompt_tokens(), again.summary.usage().prompt_tokens());
  EXPECT_EQ(Ids(again.choice), Ids(first.choice));
}

TEST(GenerateTest, ATokenIsSentAsSoonAsItIsThere) {
  StepGate gate;
  FakeEngineOptions options;
  options.runner.gate = &gate;
  TestServer server(options);
  StreamingCall call(server.inference(), Ask("abc", 5));
  for (int tokens = 1; tokens <= 5; ++tokens) {
    gate.Release();
    const Streamed& streamed = call.ReadTokens(tokens);
    EXPECT_EQ(streamed.choice.token_ids_size(), tokens);
    EXPECT_EQ(streamed.choice.text().size(), static_cast<size_t>(tokens));
  }
  EXPECT_TRUE(call.ReadAll().status.ok());
  gate.Open();
}

TEST(GenerateTest, CompleteEqualsGenerate) {
  FakeEngineOptions options;
  options.runner.script = {258, 256, 10, 11, 12};
  TestServer server(options);
  v1::GenerateRequest request = Ask("the", 12);
  request.mutable_sampling()->set_temperature(1);
  request.mutable_sampling()->set_seed(5);
  request.mutable_sampling()->set_logprobs(3);
  for (const char* stop : {"nothing like this", "ehe+"}) {
    request.mutable_stopping()->clear_stop();
    request.mutable_stopping()->add_stop(stop);
    const Streamed streamed = Generate(server, request);
    ASSERT_TRUE(streamed.status.ok()) << streamed.status.error_message();
    const v1::CompleteResponse complete = Complete(server, request);
    EXPECT_EQ(complete.choices(0).SerializeAsString(), streamed.choice.SerializeAsString());
    EXPECT_EQ(complete.summary().usage().SerializeAsString(),
              streamed.summary.usage().SerializeAsString());
  }
}

TEST(GenerateTest, TenClientsGetWhatEachGetsAlone) {
  TestServer server;
  std::vector<v1::GenerateRequest> requests;
  for (uint32_t i = 0; i < 10; ++i) {
    v1::GenerateRequest request =
        Ask(std::string(1 + 7 * i, static_cast<char>('a' + i)), 20 + 9 * i);
    request.mutable_sampling()->set_temperature(i % 2 == 0 ? 1 : 0);
    request.mutable_sampling()->set_seed(i);
    request.mutable_sampling()->set_logprobs(i);
    requests.push_back(request);
  }
  std::vector<std::string> alone;
  for (const v1::GenerateRequest& request : requests) {
    const Streamed streamed = Generate(server, request);
    ASSERT_TRUE(streamed.status.ok()) << streamed.status.error_message();
    alone.push_back(streamed.choice.SerializeAsString());
  }
  std::vector<Streamed> together(requests.size());
  std::vector<std::thread> clients;
  for (size_t i = 0; i < requests.size(); ++i) {
    clients.emplace_back([&, i] { together[i] = Generate(server, requests[i]); });
  }
  for (std::thread& client : clients) client.join();
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_TRUE(together[i].status.ok()) << together[i].status.error_message();
    EXPECT_EQ(together[i].choice.SerializeAsString(), alone[i]) << "client " << i;
  }
}

TEST(GenerateTest, WithoutASeedEachRequestDrawsItsOwn) {
  TestServer server;
  v1::GenerateRequest request = Ask("the", 40);
  request.mutable_sampling()->set_temperature(1);
  EXPECT_NE(Generate(server, request).choice.text(), Generate(server, request).choice.text());
}

TEST(GenerateTest, StopsAtAStringThatSpansTokens) {
  FakeEngineOptions options;
  const Logger logger;
  options.runner.script = FakeEngine({}, logger).Encode("Once upon a time\n\nThe end");
  TestServer server(options);
  v1::GenerateRequest request = Ask("the", 200);
  request.mutable_stopping()->add_stop("\n\n");
  const Streamed streamed = Generate(server, request);
  ASSERT_TRUE(streamed.status.ok()) << streamed.status.error_message();
  EXPECT_EQ(streamed.choice.text(), "Once upon a time");
  EXPECT_EQ(streamed.choice.finished().reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(streamed.choice.finished().stop(), "\n\n");
  EXPECT_EQ(streamed.summary.usage().completion_tokens(),
            static_cast<uint32_t>(streamed.choice.token_ids_size()));
  EXPECT_EQ(server.fake().Decode(Ids(streamed.choice)), "Once upon a time\n\n");
}

TEST(GenerateTest, StopsAtTokenIds) {
  FakeEngineOptions options;
  options.runner.script = {256, 258, kEndTokenId, 256, 7, 256};
  options.eos_token_ids = {kEndTokenId};
  TestServer server(options);
  const Streamed eos = Generate(server, Ask("the", 50));
  EXPECT_THAT(Ids(eos.choice), ElementsAre(256, 258));
  EXPECT_EQ(eos.choice.text(), "he the");
  EXPECT_EQ(eos.choice.finished().reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(eos.choice.finished().stop_token_id(), kEndTokenId);

  v1::GenerateRequest request = Ask("the", 50);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_stopping()->add_stop_token_ids(7);
  const Streamed own = Generate(server, request);
  EXPECT_THAT(Ids(own.choice), ElementsAre(256, 258, kEndTokenId, 256));
  EXPECT_EQ(own.choice.text(), "he thehe") << "a special token has no text";
  EXPECT_EQ(own.choice.finished().stop_token_id(), 7u);
}

TEST(GenerateTest, ACharacterOfSeveralTokensComesWhole) {
  StepGate gate;
  FakeEngineOptions options;
  const Logger logger;
  options.runner.script = FakeEngine({}, logger).Encode("本x");
  ASSERT_EQ(options.runner.script.size(), 4u);
  options.runner.gate = &gate;
  TestServer server(options);
  StreamingCall call(server.inference(), Ask("the", 4));
  gate.Release(2);
  EXPECT_EQ(call.ReadTokens(2).choice.text(), "");
  gate.Release();
  EXPECT_EQ(call.ReadTokens(3).choice.text(), "本");
  gate.Open();
  EXPECT_EQ(call.ReadAll().choice.text(), "本x");
}

TEST(GenerateTest, RendersAConversation) {
  FakeEngineOptions options;
  options.chat_template =
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}";
  TestServer server(options);
  v1::GenerateRequest chat = Ask("", 10);
  v1::Message& message = *chat.mutable_messages()->add_messages();
  message.set_role("user");
  message.set_content("the");
  EXPECT_EQ(Generate(server, chat).choice.SerializeAsString(),
            Generate(server, Ask("<user>the<assistant>", 10)).choice.SerializeAsString());
}

TEST(GenerateTest, TokenIdsAndTheirTextAreTheSameInput) {
  TestServer server;
  v1::GenerateRequest ids = Ask("", 10);
  for (const uint32_t id : server.fake().Encode("he the")) ids.mutable_token_ids()->add_ids(id);
  EXPECT_EQ(Generate(server, ids).choice.SerializeAsString(),
            Generate(server, Ask("he the", 10)).choice.SerializeAsString());
}

TEST(GenerateTest, AReaderWhoDoesNotReadDelaysNobody) {
  FakeEngineOptions options;
  options.runner.limits = {
      .vocab_size = 300, .max_context = 4096, .kv_block_size = 16, .num_kv_blocks = 512};
  TestServer server(options);
  v1::GenerateRequest big = Ask("the", 4000);
  big.mutable_sampling()->set_logprobs(20);  // several hundred bytes a token: more than is buffered
  StreamingCall slow(server.inference(), big);
  slow.ReadTokens(1);
  EXPECT_TRUE(Generate(server, Ask("another", 100)).status.ok());
  server.AwaitLoad(0, 0);  // the slow one's tokens are generated, though unread
  const Streamed& streamed = slow.ReadAll();
  EXPECT_TRUE(streamed.status.ok()) << streamed.status.error_message();
  EXPECT_EQ(streamed.choice.token_ids_size(), 4000);
  EXPECT_EQ(streamed.choice.logprobs_size(), 4000);
  EXPECT_LT(streamed.events.size(), 3000u) << "what gathers goes out together";
  EXPECT_GT(server.Metric("pregate_stream_write_blocked_seconds_total"), 0);
}

TEST(TextTest, TokenizesAndDetokenizes) {
  TestServer server;
  grpc::ClientContext tokenize_context;
  v1::TokenizeRequest tokenize;
  tokenize.set_text("he the 日本");
  v1::TokenizeResponse tokenized;
  ASSERT_TRUE(server.inference().Tokenize(&tokenize_context, tokenize, &tokenized).ok());
  EXPECT_THAT(tokenized.token_ids(), ElementsAreArray(server.fake().Encode("he the 日本")));
  grpc::ClientContext detokenize_context;
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = tokenized.token_ids();
  detokenize.add_token_ids(kEndTokenId);
  v1::DetokenizeResponse detokenized;
  ASSERT_TRUE(server.inference().Detokenize(&detokenize_context, detokenize, &detokenized).ok());
  EXPECT_EQ(detokenized.text(), "he the 日本<|end|>");
  grpc::ClientContext skip_context;
  detokenize.set_skip_special_tokens(true);
  ASSERT_TRUE(server.inference().Detokenize(&skip_context, detokenize, &detokenized).ok());
  EXPECT_EQ(detokenized.text(), "he the 日本");
}

TEST(ModelsTest, ListsTheOneModel) {
  TestServer server;
  grpc::ClientContext list_context;
  v1::ListModelsResponse models;
  ASSERT_TRUE(server.inference().ListModels(&list_context, {}, &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).name(), "fake");
  EXPECT_EQ(models.models(0).max_context(), 256u);
  for (const char* name : {"", "fake"}) {
    grpc::ClientContext get_context;
    v1::GetModelRequest request;
    request.set_model(name);
    v1::Model model;
    ASSERT_TRUE(server.inference().GetModel(&get_context, request, &model).ok());
    EXPECT_EQ(model.SerializeAsString(), models.models(0).SerializeAsString());
  }
}

}  // namespace
}  // namespace pregate
