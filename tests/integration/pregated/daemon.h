// Runs the real daemon, and asks it over gRPC.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "grpcpp/support/status.h"
#include "pregate/v1/inference.grpc.pb.h"
#include "tests/support/process.h"

namespace pregate {

// A model that is shipped: "switch-mini" or "qwen3-moe-mini".
std::string ShippedModel(const std::string& name);

// `pregated --model MODEL` on ports of the system's choice.
std::vector<std::string> PregatedArguments(const std::string& model,
                                           const std::vector<std::string>& more = {});

// A daemon that serves and logs text. Used by one thread, but for `inference`.
class Daemon {
 public:
  // Returns when the model is loaded; aborts the test, with the log, when that fails.
  explicit Daemon(const std::string& model, const std::vector<std::string>& more = {});

  const std::string& address() const { return address_; }            // of gRPC, HOST:PORT
  const std::string& http_address() const { return http_address_; }  // HOST:PORT
  v1::InferenceService::Stub& inference() { return *inference_; }
  Program& program() { return program_; }

  // Closes our connection and waits for the program's end. Once, behind the last stream.
  ProgramResult Wait();

 private:
  Program program_;
  std::string address_;
  std::string http_address_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
};

// A request for exactly `max_tokens` greedy tokens.
v1::GenerateRequest Ask(const std::string& prompt, uint32_t max_tokens);

// What a stream brought, its deltas put together.
struct Streamed {
  v1::Choice choice;
  v1::Summary summary;
  grpc::Status status;
};

// A Generate under way. Used by one thread.
class Stream {
 public:
  Stream(Daemon& daemon, const v1::GenerateRequest& request);

  // False at the end.
  bool Read();
  // Reads what is left.
  Streamed Finish();

 private:
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
  Streamed streamed_;
};

}  // namespace pregate
