// What operators see of the expert cache, and change while it serves.
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/device/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/test_server.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

FakeEngineOptions WithExperts() {
  FakeEngineOptions options;
  options.keeps_experts = true;
  return options;
}

class ExpertAdminTest : public ::testing::Test {
 protected:
  // Calls a method of the service; `answer` is what it answers.
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::AdminService::Stub::*method)(grpc::ClientContext*,
                                                                   const Request&,
                                                                   Response*),
                    const Request& request,
                    Response& answer) {
    grpc::ClientContext context;
    return (server_.admin().*method)(&context, request, &answer);
  }

  v1::GetExpertCacheResponse Read(bool include_layers = false, bool include_resident = false) {
    v1::GetExpertCacheRequest request;
    request.set_include_layers(include_layers);
    request.set_include_resident(include_resident);
    v1::GetExpertCacheResponse cache;
    const grpc::Status status = Call(&v1::AdminService::Stub::GetExpertCache, request, cache);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return cache;
  }
  grpc::Status SetCapacity(const std::string& capacity) {
    v1::SetExpertCacheCapacityRequest request;
    request.set_capacity(capacity);
    return Call(&v1::AdminService::Stub::SetExpertCacheCapacity, request, capacity_);
  }
  grpc::Status SetSpeculation(const v1::SetSpeculationRequest& request) {
    return Call(&v1::AdminService::Stub::SetSpeculation, request, speculation_);
  }
  grpc::Status SetMemoryStrategy(const std::string& strategy) {
    v1::SetMemoryStrategyRequest request;
    request.set_memory_strategy(strategy);
    return Call(&v1::AdminService::Stub::SetMemoryStrategy, request, strategy_);
  }

  // A step's use of experts of one layer.
  void Use(uint32_t layer, const std::vector<uint32_t>& experts) {
    std::vector<ExpertId> ids;
    for (const uint32_t expert : experts) ids.push_back({.layer = layer, .expert = expert});
    CallerStream stream;
    absl::StatusOr<ExpertLease> lease = server_.engine().experts()->Acquire(ids, stream);
    ASSERT_TRUE(lease.ok()) << lease.status();
    while (const std::optional<ExpertLease::Expert> expert = lease->Next())
      EXPECT_TRUE(expert->status.ok()) << expert->status;
    // That the copies are done is noted by another thread.
    while (server_.engine().experts()->Read().cache.slots.loading > 0) std::this_thread::yield();
  }

  TestServer server_{WithExperts()};
  v1::SetExpertCacheCapacityResponse capacity_;
  v1::SetSpeculationResponse speculation_;
  v1::SetMemoryStrategyResponse strategy_;
};

TEST_F(ExpertAdminTest, TellsOfTheCache) {
  const v1::GetExpertCacheResponse cache = Read();
  EXPECT_EQ(cache.expert_codec(), "none");
  EXPECT_EQ(cache.memory_strategy(), "single_async");
  EXPECT_EQ(cache.eviction(), "ewma");
  EXPECT_EQ(cache.num_layers(), 2u);
  EXPECT_EQ(cache.num_experts(), 8u);
  EXPECT_FALSE(cache.unified_memory());
  EXPECT_EQ(cache.slots(), 4u);
  EXPECT_EQ(cache.slots_free(), 4u);
  EXPECT_EQ(cache.slot_bytes(), 4096u);
  EXPECT_EQ(cache.resident_bytes(), 0u);
  EXPECT_EQ(cache.speculation().mode(), "adaptive");
  EXPECT_EQ(cache.speculation().lookahead(), 1u);
  EXPECT_EQ(cache.speculation().aggressiveness(), 0.7);
  EXPECT_THAT(cache.layers(), IsEmpty());
}

TEST_F(ExpertAdminTest, CountsLookUpsByLayer) {
  Use(0, {5, 3});
  Use(1, {2});
  Use(0, {3});
  const v1::GetExpertCacheResponse cache = Read(true);
  EXPECT_EQ(cache.lookups().hits(), 1u);
  EXPECT_EQ(cache.lookups().late_hits(), 0u);
  EXPECT_EQ(cache.lookups().misses(), 3u);
  EXPECT_EQ(cache.demanded_bytes(), 3u * 4096);
  EXPECT_EQ(cache.slots_free(), 1u);
  EXPECT_EQ(cache.slots_ready(), 3u);
  EXPECT_EQ(cache.resident_bytes(), 3u * 4096);
  ASSERT_EQ(cache.layers_size(), 2);
  EXPECT_EQ(cache.layers(0).layer(), 0u);
  EXPECT_EQ(cache.layers(0).lookups().hits(), 1u);
  EXPECT_EQ(cache.layers(0).lookups().misses(), 2u);
  EXPECT_EQ(cache.layers(1).layer(), 1u);
  EXPECT_EQ(cache.layers(1).lookups().misses(), 1u);
  EXPECT_THAT(cache.layers(0).resident_experts(), IsEmpty()) << "not asked for";
}

TEST_F(ExpertAdminTest, NamesWhatIsResidentAndForgetsItWhenTold) {
  Use(0, {5, 3});
  Use(1, {2});
  v1::GetExpertCacheResponse cache = Read(false, true);
  ASSERT_EQ(cache.layers_size(), 2);
  EXPECT_THAT(cache.layers(0).resident_experts(), ElementsAre(3, 5));
  EXPECT_THAT(cache.layers(1).resident_experts(), ElementsAre(2));

  v1::ResetExpertCacheResponse answer;
  ASSERT_TRUE(Call(&v1::AdminService::Stub::ResetExpertCache, {}, answer).ok());
  cache = Read(false, true);
  EXPECT_EQ(cache.slots_free(), 4u);
  EXPECT_THAT(cache.layers(0).resident_experts(), IsEmpty());
  EXPECT_EQ(cache.lookups().misses(), 3u) << "counters stay";
}

TEST_F(ExpertAdminTest, ChangesTheCapacityBothWays) {
  Use(0, {0, 1, 2, 3});
  ASSERT_TRUE(SetCapacity("50%").ok());
  EXPECT_EQ(capacity_.slots(), 8u);
  Use(1, {0, 1, 2, 3});
  EXPECT_EQ(Read().slots_ready(), 8u);
  ASSERT_TRUE(SetCapacity("3").ok());
  EXPECT_EQ(capacity_.slots(), 3u);
  EXPECT_EQ(Read().slots_ready(), 3u);
  ASSERT_TRUE(SetCapacity("20KiB").ok());
  EXPECT_EQ(capacity_.slots(), 5u);
}

TEST_F(ExpertAdminTest, SaysWhyACapacityIsRefused) {
  grpc::Status status = SetCapacity("200%");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("capacity: '200%' is not a share above 0"));
  EXPECT_THAT(DetailsOf(status).fields, ElementsAre("capacity"));
  EXPECT_EQ(DetailsOf(status).reason, "INVALID_FIELD");
  status = SetCapacity("16");  // of 4 KiB, where 48 KiB are to be had
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailsOf(status).reason, "DOES_NOT_FIT");
  EXPECT_EQ(Read().slots(), 4u);
}

TEST_F(ExpertAdminTest, ChangesWhatIsSetOfTheSpeculation) {
  v1::SetSpeculationRequest request;
  request.set_mode("layer_minus_1");
  request.set_lookahead(2);
  ASSERT_TRUE(SetSpeculation(request).ok());
  EXPECT_EQ(speculation_.speculation().mode(), "layer_minus_1");
  EXPECT_EQ(speculation_.speculation().lookahead(), 2u);
  EXPECT_EQ(speculation_.speculation().aggressiveness(), 0.7);
  request.Clear();
  request.set_aggressiveness(0);
  request.set_confidence(0.25);
  ASSERT_TRUE(SetSpeculation(request).ok());
  const v1::Speculation speculation = Read().speculation();
  EXPECT_EQ(speculation.mode(), "layer_minus_1");
  EXPECT_EQ(speculation.lookahead(), 2u);
  EXPECT_EQ(speculation.aggressiveness(), 0);
  EXPECT_EQ(speculation.confidence(), 0.25);
}

TEST_F(ExpertAdminTest, SaysWhySpeculationIsRefused) {
  const auto field_at_fault = [this](auto set) {
    v1::SetSpeculationRequest request;
    set(request);
    const grpc::Status status = SetSpeculation(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return absl::StrCat(DetailsOf(status).reason, " ", DetailsOf(status).fields.at(0));
  };
  using Request = v1::SetSpeculationRequest;
  EXPECT_EQ(field_at_fault([](Request& request) { request.set_mode("oracle"); }),
            "INVALID_FIELD mode");
  EXPECT_EQ(field_at_fault([](Request& request) { request.set_lookahead(3); }),
            "INVALID_FIELD lookahead");
  EXPECT_EQ(field_at_fault([](Request& request) { request.set_aggressiveness(1.5); }),
            "INVALID_FIELD aggressiveness");
  EXPECT_EQ(field_at_fault([](Request& request) { request.set_confidence(-1); }),
            "INVALID_FIELD confidence");

  Request request;
  request.set_mode("pregate");
  request.set_lookahead(2);
  const grpc::Status status = SetSpeculation(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(status).reason, "MODEL_LACKS_IT");
  EXPECT_EQ(Read().speculation().mode(), "adaptive");
  EXPECT_EQ(Read().speculation().lookahead(), 1u) << "all of a request or nothing";
}

TEST_F(ExpertAdminTest, ChangesTheMemoryStrategy) {
  ASSERT_TRUE(SetMemoryStrategy("cpu_offload").ok());
  EXPECT_EQ(strategy_.memory_strategy(), "cpu_offload");
  EXPECT_EQ(strategy_.slots(), 0u);
  EXPECT_TRUE(Read().unified_memory());
  ASSERT_TRUE(SetCapacity("6").ok());
  EXPECT_EQ(Read().memory_strategy(), "single_async") << "slots are for that";
  EXPECT_EQ(Read().slots(), 6u);
  ASSERT_TRUE(SetMemoryStrategy("streaming").ok());
  EXPECT_EQ(strategy_.memory_strategy(), "streaming");
  ASSERT_TRUE(SetMemoryStrategy("auto").ok());
  EXPECT_EQ(strategy_.memory_strategy(), "single_async");
  EXPECT_GT(strategy_.slots(), 0u);
  EXPECT_FALSE(Read().unified_memory());

  const grpc::Status status = SetMemoryStrategy("hope");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(status).fields, ElementsAre("memory_strategy"));
  EXPECT_EQ(Read().memory_strategy(), "single_async");
}

TEST_F(ExpertAdminTest, LogsChangesAndRefusalsButNotLooks) {
  Read();
  EXPECT_THAT(server_.log().all(), Not(HasSubstr("method=GetExpertCache")));
  SetCapacity("8");
  EXPECT_THAT(server_.log().all(), HasSubstr("method=SetExpertCacheCapacity"));
  EXPECT_THAT(server_.log().all(), HasSubstr("capacity: \\\"8\\\""));
  EXPECT_THAT(server_.log().all(), HasSubstr("code=OK"));
  SetCapacity("none");
  EXPECT_THAT(server_.log().all(), HasSubstr("code=INVALID_ARGUMENT"));
}

TEST_F(ExpertAdminTest, SendsTheRoutingTraceInPieces) {
  constexpr size_t kTokens = 50'000;
  for (uint32_t token = 0; token < kTokens; ++token) {
    const uint32_t experts[] = {token * 7 % 8, token * token % 8};
    server_.engine().experts()->RecordRouting(token / 1000, token % 1000 < 10, experts);
  }
  grpc::ClientContext context;
  const auto reader = server_.admin().DumpRoutingTrace(&context, {});
  std::string trace;
  int pieces = 0;
  for (v1::DumpRoutingTraceResponse piece; reader->Read(&piece); ++pieces) {
    EXPECT_LE(piece.ByteSizeLong(), size_t{64} << 10);
    trace += piece.data();
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_GE(pieces, 2);
  EXPECT_EQ(trace, SerializeRoutingTrace(server_.engine().experts()->ReadRoutingTrace()));
  const absl::StatusOr<RoutingTrace> parsed = ParseRoutingTrace(trace);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->model, "fake");
  ASSERT_EQ(parsed->sequences.size(), kTokens / 1000);
  EXPECT_EQ(parsed->sequences[1].num_prompt_tokens, 10u);
  EXPECT_EQ(server_.Metric("pregate_requests_total{method=\"DumpRoutingTrace\",code=\"OK\"}"), 1);
}

TEST_F(ExpertAdminTest, ATraceThatNobodyReadsAnyMoreEnds) {
  for (uint32_t token = 0; token < 50'000; ++token) {
    const uint32_t experts[] = {token % 8, token * 3 % 8};
    server_.engine().experts()->RecordRouting(token, false, experts);
  }
  grpc::ClientContext context;
  const auto reader = server_.admin().DumpRoutingTrace(&context, {});
  v1::DumpRoutingTraceResponse piece;
  ASSERT_TRUE(reader->Read(&piece));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

const char* const kMethods[] = {"GetExpertCache",
                                "ResetExpertCache",
                                "SetExpertCacheCapacity",
                                "SetSpeculation",
                                "SetMemoryStrategy",
                                "DumpRoutingTrace",
                                "ProfileDevice"};

TEST(NoExpertCacheTest, SaysThatThereIsNone) {
  TestServer server;
  for (const char* method : kMethods) {
    const grpc::Status status =
        CallRaw(server, absl::StrCat("/pregate.v1.AdminService/", method), "").first;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION) << method;
    EXPECT_EQ(DetailsOf(status).reason, "NO_EXPERT_CACHE") << method;
  }
}

TEST(NoExpertCacheTest, SaysThatTheModelIsStillLoaded) {
  TestServer server(WithExperts(), TestServer::Start::kLoading);
  for (const char* method : kMethods) {
    const grpc::Status status =
        CallRaw(server, absl::StrCat("/pregate.v1.AdminService/", method), "").first;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << method;
    EXPECT_EQ(DetailsOf(status).reason, "LOADING") << method;
    EXPECT_TRUE(DetailsOf(status).has_retry) << method;
  }
}

}  // namespace
}  // namespace pregate
