// What a client gets does not depend on who else asks.
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/integration/pregated/daemon.h"

namespace pregate {
namespace {

constexpr int kClients = 10;

// Prompts and answers of different lengths; every other one is drawn at random.
v1::GenerateRequest RequestOf(int client) {
  std::string prompt = "It was a dark night";
  for (int i = 0; i < client * client; ++i) absl::StrAppend(&prompt, ", and then ", i);
  v1::GenerateRequest request = Ask(prompt, static_cast<uint32_t>(8 + 12 * client));
  request.mutable_sampling()->set_logprobs(3);
  if (client % 2 == 1) {
    request.mutable_sampling()->set_temperature(0.9F);
    request.mutable_sampling()->set_top_k(40);
    request.mutable_sampling()->set_top_p(0.95F);
    request.mutable_sampling()->set_seed(static_cast<uint64_t>(client));
  }
  return request;
}

class ExactnessTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ExactnessTest, TenClientsTogetherGetWhatEachGetsAlone) {
  Daemon daemon(ShippedModel(GetParam()));
  std::vector<Streamed> alone;
  for (int client = 0; client < kClients; ++client)
    alone.push_back(Stream(daemon, RequestOf(client)).Finish());

  std::vector<Streamed> together(kClients);
  std::vector<std::thread> threads;
  for (int client = 0; client < kClients; ++client) {
    threads.emplace_back(
        [&, client] { together[client] = Stream(daemon, RequestOf(client)).Finish(); });
  }
  for (std::thread& thread : threads) thread.join();

  for (int client = 0; client < kClients; ++client) {
    ASSERT_TRUE(alone[client].status.ok()) << alone[client].status.error_message();
    ASSERT_TRUE(together[client].status.ok()) << together[client].status.error_message();
    ASSERT_EQ(alone[client].choice.token_ids_size(), 8 + 12 * client);
    ASSERT_EQ(alone[client].choice.logprobs_size(), 8 + 12 * client);
    // Token ids, text, reason and the bits of the logprobs.
    EXPECT_EQ(together[client].choice.SerializeAsString(), alone[client].choice.SerializeAsString())
        << "client " << client;
  }
}

INSTANTIATE_TEST_SUITE_P(ShippedModels,
                         ExactnessTest,
                         ::testing::Values("switch-mini", "qwen3-moe-mini"),
                         [](const auto& info) {
                           return std::string(info.param) == "switch-mini" ? "SwitchMini"
                                                                           : "Qwen3MoeMini";
                         });

}  // namespace
}  // namespace pregate
