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

v1::GetExpertCacheResponse Cache() {
  v1::GetExpertCacheResponse cache;
  cache.set_expert_codec("int8");
  cache.set_memory_strategy("single_async");
  cache.set_eviction("ewma");
  cache.set_num_layers(2);
  cache.set_num_experts(8);
  cache.set_slots(4);
  cache.set_slots_ready(3);
  cache.set_slots_loading(1);
  cache.set_slot_bytes(2 << 20);
  cache.mutable_lookups()->set_hits(1200);
  cache.mutable_lookups()->set_late_hits(150);
  cache.mutable_lookups()->set_misses(150);
  cache.set_evictions(296);
  cache.set_demanded_bytes(300 << 20);
  cache.set_stall_seconds(1.25);
  cache.mutable_prefetch_bytes()->set_useful(100 << 20);
  cache.mutable_prefetch_bytes()->set_late(20 << 20);
  cache.mutable_prefetch_bytes()->set_wasted(4 << 20);
  cache.mutable_prefetch_bytes()->set_cancelled(8 << 20);
  cache.mutable_prefetch_bytes()->set_pending(2 << 20);
  cache.mutable_speculation()->set_mode("adaptive");
  cache.mutable_speculation()->set_predicted(200);
  cache.mutable_speculation()->set_correct(150);
  return cache;
}

TEST(FormatExpertCacheTest, SlotsRatesBytesAndSpeculation) {
  EXPECT_EQ(
      FormatExpertCache(Cache()),
      "experts      4 slots for 16 experts (25 %), 3 ready, 1 loading, 2.0 MiB each\n"
      "look-ups     1500: 80.0 % hits, 10.0 % late, 10.0 % misses\n"
      "loaded       300.0 MiB on demand, 296 evictions\n"
      "prefetched   100.0 MiB useful, 20.0 MiB late, 4.0 MiB wasted, 8.0 MiB cancelled, 2.0 MiB "
      "pending\n"
      "stall        1.250 s\n"
      "policy       single_async, ewma, codec int8\n"
      "speculation  adaptive, 75.0 % of 200 predictions were right\n");
}

TEST(FormatExpertCacheTest, LayersAsATableBelow) {
  v1::GetExpertCacheResponse cache = Cache();
  cache.add_layers()->mutable_lookups()->set_hits(3);
  cache.mutable_layers(0)->mutable_lookups()->set_misses(1);
  cache.add_layers()->set_layer(1);
  EXPECT_EQ(FormatExpertCache(cache),
            FormatExpertCache(Cache()) +
                "\n"
                "LAYER  LOOK-UPS  HITS    LATE   MISSES\n"
                "0      4         75.0 %  0.0 %  25.0 %\n"
                "1      0         -       -      -\n");
}

TEST(FormatExpertCacheTest, SaysWhereThereAreNoSlots) {
  v1::GetExpertCacheResponse cache = Cache();
  cache.set_unified_memory(true);
  cache.mutable_lookups()->Clear();
  cache.mutable_speculation()->set_predicted(0);
  const std::string text = FormatExpertCache(cache);
  EXPECT_NE(text.find("experts      16 experts are used where they lie in host memory\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("look-ups     none yet\n"), std::string::npos) << text;
  EXPECT_NE(text.find("speculation  adaptive\n"), std::string::npos) << text;
}

}  // namespace
}  // namespace pregate
