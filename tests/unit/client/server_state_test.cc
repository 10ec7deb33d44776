#include "client/server_state.h"

#include "gtest/gtest.h"

namespace pregate {
namespace {

TEST(FormatModelsTest, ALineForEachModel) {
  v1::ListModelsResponse response;
  v1::Model* const model = response.add_models();
  model->set_name("qwen3-30b-a3b");
  model->set_family("qwen3_moe");
  model->set_dtype("bfloat16");
  model->set_num_parameters(30'532'122'624);
  model->set_num_layers(48);
  model->set_num_experts(128);
  model->set_num_experts_per_token(8);
  model->set_max_context(40960);
  model->set_has_chat_template(true);
  EXPECT_EQ(FormatModels(response),
            "NAME           FAMILY     DTYPE     PARAMETERS  LAYERS  EXPERTS   CONTEXT  CHAT\n"
            "qwen3-30b-a3b  qwen3_moe  bfloat16  30.5 B      48      8 of 128  40960    yes\n");
}

TEST(FormatStatsTest, ServerModelAndLoad) {
  v1::GetServerInfoResponse info;
  info.set_version("0.1.0");
  info.set_commit("abc1234");
  info.set_uptime_seconds(3723.9);
  v1::GetLoadResponse load;
  load.set_requests_running(3);
  load.set_max_running(64);
  load.set_max_queued(256);
  load.set_kv_blocks_used(12);
  load.set_kv_blocks_total(1024);
  EXPECT_EQ(FormatStats(info, load),
            "server    0.1.0 (abc1234), up 1h2m3s\n"
            "model     loading\n"
            "running   3 of 64 requests\n"
            "waiting   0 of 256 requests\n"
            "KV cache  12 of 1024 blocks\n");
  info.set_model("switch-mini");
  info.set_dtype("float32");
  info.set_device("cpu");
  EXPECT_NE(FormatStats(info, load).find("model     switch-mini, float32 on cpu\n"),
            std::string::npos);
}

}  // namespace
}  // namespace pregate
