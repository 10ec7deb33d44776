// Who gets in, over real connections: TLS, client certificates, tokens, and their change while the
// server runs.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "tests/support/certificates.h"
#include "tests/support/process.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_server.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// One method that each service has, without side effects; with `token` unless it is empty.
grpc::Status ListModels(const std::shared_ptr<grpc::Channel>& channel,
                        const std::string& token = "") {
  grpc::ClientContext context;
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  v1::ListModelsResponse answer;
  return v1::InferenceService::NewStub(channel)->ListModels(
      &context, v1::ListModelsRequest(), &answer);
}
grpc::Status GetLoad(const std::shared_ptr<grpc::Channel>& channel, const std::string& token = "") {
  grpc::ClientContext context;
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  v1::GetLoadResponse answer;
  return v1::AdminService::NewStub(channel)->GetLoad(&context, v1::GetLoadRequest(), &answer);
}

class TlsServerTest : public ::testing::Test {
 protected:
  ServerOptions Options(bool asks_for_certificates) const {
    ServerOptions options;
    options.tls.certificate = pair_.certificate;
    options.tls.key = pair_.key;
    if (asks_for_certificates) options.tls.client_ca = authority_.certificate();
    return options;
  }
  // A connection of its own, that trusts `authority` and shows `client`'s certificate.
  static std::shared_ptr<grpc::Channel> Connect(const TestServer& server,
                                                const TestAuthority& authority,
                                                const CertificatePair& client = {}) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ReadFile(authority.certificate());
    if (!client.key.empty()) {
      options.pem_private_key = ReadFile(client.key);
      options.pem_cert_chain = ReadFile(client.certificate);
    }
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(server.address(), grpc::SslCredentials(options), arguments);
  }
  // Puts `pair` in the place of the server's.
  void Replace(const CertificatePair& pair) const {
    std::filesystem::rename(pair.certificate, pair_.certificate);
    std::filesystem::rename(pair.key, pair_.key);
  }

  const TempFolder folder_;
  const TestAuthority authority_{folder_.path(), "authority"};
  const TestAuthority other_authority_{folder_.path(), "other-authority"};
  const CertificatePair pair_ = authority_.Issue("server");
};

TEST_F(TlsServerTest, ServesThoseWhoTrustItsAuthority) {
  TestServer server({}, TestServer::Start::kReady, Options(false));
  const grpc::Status status = ListModels(Connect(server, authority_));
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(ListModels(Connect(server, other_authority_)).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ListModels(server.channel()).error_code(), grpc::StatusCode::UNAVAILABLE)
      << "nothing is answered without TLS";
}

TEST_F(TlsServerTest, AsksForCertificatesOfTheClientsAuthority) {
  TestServer server({}, TestServer::Start::kReady, Options(true));
  const grpc::Status status = ListModels(Connect(server, authority_, authority_.Issue("alice")));
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(ListModels(Connect(server, authority_)).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ListModels(Connect(server, authority_, other_authority_.Issue("mallory"))).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TlsServerTest, ANewCertificateIsServedWithoutARestart) {
  TestServer server({}, TestServer::Start::kReady, Options(false));
  const std::shared_ptr<grpc::Channel> old = Connect(server, authority_);
  ASSERT_TRUE(ListModels(old).ok());
  Replace(other_authority_.Issue("next"));
  server.server().RefreshFiles();
  EXPECT_TRUE(ListModels(Connect(server, other_authority_)).ok());
  EXPECT_EQ(ListModels(Connect(server, authority_)).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(ListModels(old).ok()) << "a connection that is there goes on";
}

TEST_F(TlsServerTest, ABadReplacementLeavesTheOldPair) {
  TestServer server({}, TestServer::Start::kReady, Options(false));
  const CertificatePair next = other_authority_.Issue("next");
  std::filesystem::rename(next.certificate, pair_.certificate);  // and not its key
  server.server().RefreshFiles();
  EXPECT_THAT(server.log().all(),
              HasSubstr("ERROR TLS files not taken over, the old ones stay reason="));
  EXPECT_TRUE(ListModels(Connect(server, authority_)).ok());
  std::filesystem::rename(next.key, pair_.key);
  server.server().RefreshFiles();
  EXPECT_TRUE(ListModels(Connect(server, other_authority_)).ok());
}

TEST_F(TlsServerTest, ClientsThatAreTrustedChangeWithTheFile) {
  ServerOptions options = Options(true);
  options.tls.client_ca = folder_.Write("clients.pem", ReadFile(authority_.certificate()));
  TestServer server({}, TestServer::Start::kReady, options);
  const CertificatePair mallory = other_authority_.Issue("mallory");
  EXPECT_FALSE(ListModels(Connect(server, authority_, mallory)).ok());
  folder_.Write("clients.pem",
                ReadFile(authority_.certificate()) + ReadFile(other_authority_.certificate()));
  server.server().RefreshFiles();
  EXPECT_TRUE(ListModels(Connect(server, authority_, mallory)).ok());
}

TEST_F(TlsServerTest, ACertificatesSubjectNamesTheClient) {
  FakeEngineOptions engine;
  engine.keeps_experts = true;
  TestServer server(engine, TestServer::Start::kReady, Options(true));
  const auto stub =
      v1::AdminService::NewStub(Connect(server, authority_, authority_.Issue("alice")));
  grpc::ClientContext context;
  v1::ResetExpertCacheResponse answer;
  ASSERT_TRUE(stub->ResetExpertCache(&context, v1::ResetExpertCacheRequest(), &answer).ok());
  EXPECT_THAT(
      server.log().all(),
      HasSubstr("admin method=ResetExpertCache request=\"\" client=\"CN=alice\" peer=ipv4:"));
}

// The program, with `arguments` behind its server's address.
ProgramResult RunPregate(const TestServer& server, const std::vector<std::string>& arguments) {
  std::vector<std::string> argv = {BuiltProgram("pregate"), "--server", server.address()};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return RunProgram(argv);
}

TEST_F(TlsServerTest, TheClientProgramSpeaksIt) {
  TestServer server({}, TestServer::Start::kReady, Options(true));
  const CertificatePair alice = authority_.Issue("alice");
  const std::vector<std::string> good = {"--tls-ca",
                                         authority_.certificate(),
                                         "--tls-cert",
                                         alice.certificate,
                                         "--tls-key",
                                         alice.key};
  for (const char* command : {"models", "health", "stats"}) {
    std::vector<std::string> arguments = good;
    arguments.push_back(command);
    const ProgramResult result = RunPregate(server, arguments);
    EXPECT_EQ(result.exit_code, 0) << command << ": " << result.err;
  }
  const std::vector<std::vector<std::string>> bad = {
      {"--tls-ca", other_authority_.certificate(), "models"},
      {"--tls-ca", authority_.certificate(), "models"},
      {"models"}};
  for (const std::vector<std::string>& arguments : bad) {
    const ProgramResult result = RunPregate(server, arguments);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, HasSubstr("--tls-ca")) << "it says what may help";
  }
}

class TokenServerTest : public ::testing::Test {
 protected:
  ServerOptions Options() const {
    ServerOptions options;
    options.auth_token_file = folder_.Write("tokens", "alices-token alice\nbobs-token bob\n");
    options.admin_token_file = folder_.Write("admins", "roots-token root\n");
    return options;
  }

  const TempFolder folder_;
};

TEST_F(TokenServerTest, EveryMethodButHealthAndReflectionNeedsOne) {
  TestServer server({}, TestServer::Start::kReady, Options());
  for (const char* method : {"InferenceService/Generate",
                             "InferenceService/Complete",
                             "InferenceService/Tokenize",
                             "InferenceService/Detokenize",
                             "InferenceService/ListModels",
                             "InferenceService/GetModel",
                             "AdminService/GetServerInfo",
                             "AdminService/GetLoad",
                             "AdminService/Abort",
                             "AdminService/Drain",
                             "AdminService/GetExpertCache",
                             "AdminService/ResetExpertCache",
                             "AdminService/SetExpertCacheCapacity",
                             "AdminService/SetSpeculation",
                             "AdminService/SetMemoryStrategy",
                             "AdminService/DumpRoutingTrace",
                             "AdminService/ProfileDevice"}) {
    // Bytes that are no message: who has no token is not told so.
    const grpc::Status status =
        CallRaw(server, absl::StrCat("/pregate.v1.", method), "\xff\xff").first;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << method;
    EXPECT_EQ(DetailsOf(status).reason, "TOKEN_MISSING") << method;
    EXPECT_EQ(DetailsOf(status).domain, "pregate") << method;
  }
  EXPECT_EQ(server.CheckHealth(""), grpc::health::v1::HealthCheckResponse::SERVING);
  const auto [status, services] = CallRaw(
      server, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*");
  EXPECT_TRUE(status.ok());
  EXPECT_THAT(services, HasSubstr("pregate.v1.InferenceService"));
  EXPECT_EQ(server.Metric("pregate_requests_total{method=\"Generate\",code=\"UNAUTHENTICATED\"}"),
            1);
}

TEST_F(TokenServerTest, AdmitsByTokenAndLogsNone) {
  TestServer server({}, TestServer::Start::kReady, Options());
  const std::shared_ptr<grpc::Channel> channel = server.channel();
  EXPECT_TRUE(ListModels(channel, "alices-token").ok());
  EXPECT_TRUE(ListModels(channel, "roots-token").ok());
  EXPECT_EQ(ListModels(channel, "another-token").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(GetLoad(channel, "roots-token").ok());
  const grpc::Status denied = GetLoad(channel, "alices-token");
  EXPECT_EQ(denied.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(DetailsOf(denied).reason, "ADMIN_TOKEN_NEEDED");
  EXPECT_THAT(denied.error_message(), Not(HasSubstr("alices-token")));
  EXPECT_THAT(server.log().all(), Not(HasSubstr("-token")));
  EXPECT_THAT(server.Get("/metrics").body, Not(HasSubstr("-token")));
}

TEST_F(TokenServerTest, TokensRotateWithoutARestart) {
  TestServer server({}, TestServer::Start::kReady, Options());
  const std::shared_ptr<grpc::Channel> channel = server.channel();
  folder_.Write("tokens", "alices-token alice\nalices-next-token alice\n");
  server.server().RefreshFiles();
  EXPECT_TRUE(ListModels(channel, "alices-token").ok());
  EXPECT_TRUE(ListModels(channel, "alices-next-token").ok());
  EXPECT_EQ(ListModels(channel, "bobs-token").error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(TokenServerTest, AnAdminsChangeIsLoggedWithItsName) {
  FakeEngineOptions engine;
  engine.keeps_experts = true;
  TestServer server(engine, TestServer::Start::kReady, Options());
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer roots-token");
  v1::ResetExpertCacheResponse answer;
  ASSERT_TRUE(
      server.admin().ResetExpertCache(&context, v1::ResetExpertCacheRequest(), &answer).ok());
  EXPECT_THAT(server.log().all(), HasSubstr("client=root peer=ipv4:127.0.0.1:"));
}

TEST_F(TokenServerTest, TheClientProgramShowsTheOneThatItIsGiven) {
  TestServer server({}, TestServer::Start::kReady, Options());
  const std::string file = folder_.Write("mine", "alices-token\n");
  EXPECT_EQ(RunPregate(server, {"--token-file", file, "models"}).exit_code, 0);
  EXPECT_EQ(
      RunPregate(server, {"--token-file", file, "generate", "--max-tokens", "1", "Hi"}).exit_code,
      0);
  const ProgramResult without = RunPregate(server, {"models"});
  EXPECT_EQ(without.exit_code, 1);
  EXPECT_THAT(without.err, AllOf(HasSubstr("TOKEN_MISSING"), HasSubstr("--token-file")));
  const ProgramResult environment = RunProgram({"env",
                                                "PREGATE_TOKEN=roots-token",
                                                BuiltProgram("pregate"),
                                                "--server",
                                                server.address(),
                                                "stats"});
  EXPECT_EQ(environment.exit_code, 0) << environment.err;
}

// A flood of one client's does not keep another's request waiting: they are told apart by tokens.
TEST_F(TokenServerTest, TheEngineIsSharedBetweenTheTokensClients) {
  StepGate gate;
  FakeEngineOptions engine;
  engine.engine.max_running = 1;
  engine.runner.gate = &gate;
  TestServer server(engine, TestServer::Start::kReady, Options());
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  const auto ask = [&](const std::string& prompt, const std::string& token) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    contexts.back()->AddMetadata("authorization", "Bearer " + token);
    readers.push_back(server.inference().Generate(contexts.back().get(), Ask(prompt, 2)));
    server.AwaitLoad(1, static_cast<uint32_t>(readers.size()) - 1);
  };
  for (const char* prompt : {"a1", "a2", "a3"}) ask(prompt, "alices-token");
  ask("b1", "bobs-token");
  gate.Open();
  for (const auto& reader : readers) {
    v1::GenerateResponse event;
    while (reader->Read(&event)) {
    }
    EXPECT_TRUE(reader->Finish().ok());
  }
  std::vector<std::string> order;
  for (const FakeRunner::RecordedStep& step : server.runner().steps()) {
    if (step.front().is_prompt) order.push_back(server.fake().Decode(step.front().token_ids));
  }
  EXPECT_THAT(order, ElementsAre("a1", "b1", "a2", "a3"));
}

}  // namespace
}  // namespace pregate
