#include "tests/integration/pregated/daemon.h"

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "grpcpp/create_channel.h"

namespace pregate {
namespace {

// What stands behind `key` on its line of the log.
std::string ValueOf(const std::string& key, const std::string& log) {
  const size_t begin = log.find(key);
  PREGATE_CHECK(begin != std::string::npos, "no ", key, " in the log:\n", log);
  const size_t value = begin + key.size();
  return log.substr(value, log.find('\n', value) - value);
}

}  // namespace

std::string ShippedModel(const std::string& name) {
  return absl::StrCat(PREGATE_SOURCE_DIR, "/models/", name);
}

std::vector<std::string> PregatedArguments(const std::string& model,
                                           const std::vector<std::string>& more) {
  std::vector<std::string> argv = {BuiltProgram("pregated"),
                                   "--model",
                                   model,
                                   "--listen",
                                   "127.0.0.1:0",
                                   "--http-listen",
                                   "127.0.0.1:0"};
  argv.insert(argv.end(), more.begin(), more.end());
  return argv;
}

Daemon::Daemon(const std::string& model, const std::vector<std::string>& more)
    : program_(PregatedArguments(model, more)) {
  const std::string log = program_.WaitForErr("INFO serving model=");
  PREGATE_CHECK(log.find("INFO serving model=") != std::string::npos, log);
  address_ = ValueOf("gRPC listening address=", log);
  http_address_ = ValueOf("HTTP listening address=", log);
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  inference_ = v1::InferenceService::NewStub(
      grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments));
}

ProgramResult Daemon::Wait() {
  inference_ = nullptr;
  return program_.Wait();
}

v1::GenerateRequest Ask(const std::string& prompt, uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_prompt(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

Stream::Stream(Daemon& daemon, const v1::GenerateRequest& request)
    : reader_(daemon.inference().Generate(&context_, request)) {}

bool Stream::Read() {
  v1::GenerateResponse event;
  if (!reader_->Read(&event)) return false;
  if (event.has_delta()) {
    streamed_.choice.mutable_token_ids()->MergeFrom(event.delta().token_ids());
    streamed_.choice.mutable_text()->append(event.delta().text());
    streamed_.choice.mutable_logprobs()->MergeFrom(event.delta().logprobs());
  }
  if (event.has_finished()) *streamed_.choice.mutable_finished() = event.finished();
  if (event.has_summary()) streamed_.summary = event.summary();
  return true;
}

Streamed Stream::Finish() {
  while (Read()) {
  }
  streamed_.status = reader_->Finish();
  return streamed_;
}

}  // namespace pregate
