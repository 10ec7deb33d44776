// The calls that generate text, as gRPC's callback API wants them.
#pragma once

#include <atomic>
#include <optional>

#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/generation_call.h"

namespace pregate {

// InferenceService.Generate: writes what has arrived, one write in flight. While a write is,
// further tokens gather in the stream and go out together: a slow reader costs bytes, never engine
// time. Owns itself until OnDone.
class GenerateReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  GenerateReactor(const ServerState& state,
                  grpc::CallbackServerContext& context,
                  const grpc::ByteBuffer& request);

 private:
  // What is written when no delta is left.
  enum class Next { kFinished, kSummary, kNothing };

  void OnWriteDone(bool ok) override;
  void OnCancel() override { call_.Cancel(); }
  void OnDone() override;

  void Advance();
  void EndWrite();
  bool WriteNext();
  void Write(const v1::GenerateResponse& response);

  const ServerState& state_;
  GenerationCall call_;

  // Of Advance alone.
  Next next_ = Next::kFinished;
  grpc::ByteBuffer written_;  // until the write is done
  bool write_in_flight_ = false;
  std::optional<TimePoint> blocked_since_;  // more is ready and a write in flight
  bool ended_ = false;

  std::atomic<bool> write_done_{false};
};

// InferenceService.Complete: the same, answered whole.
class CompleteReactor final : public grpc::ServerUnaryReactor {
 public:
  CompleteReactor(const ServerState& state,
                  grpc::CallbackServerContext& context,
                  const grpc::ByteBuffer& request,
                  grpc::ByteBuffer& response);

 private:
  void OnCancel() override { call_.Cancel(); }
  void OnDone() override;

  void Advance();

  GenerationCall call_;
  grpc::ByteBuffer& response_;
  v1::CompleteResponse complete_;
  bool ended_ = false;
};

}  // namespace pregate
