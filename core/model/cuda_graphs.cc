#include "core/model/cuda_graphs.h"

#include "core/base/status_macros.h"
#include "core/kernel/cuda_status.h"

namespace pregate {
namespace {

// Null graphs are let through.
void Destroy(cudaGraphExec_t graph) {
  if (graph != nullptr) cudaGraphExecDestroy(graph);
}

absl::Status Record(cudaStream_t stream,
                    absl::FunctionRef<absl::Status()> body,
                    cudaGraphExec_t& out) {
  PREGATE_RETURN_IF_ERROR(CudaStatus(
      cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture"));
  const absl::Status recorded = body();
  cudaGraph_t graph = nullptr;
  absl::Status status = CudaStatus(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  if (!recorded.ok()) status = recorded;
  if (status.ok()) {
    status = CudaStatus(cudaGraphInstantiate(&out, graph, 0), "cudaGraphInstantiate");
  }
  if (graph != nullptr) cudaGraphDestroy(graph);
  return status;
}

}  // namespace

CudaGraphs::~CudaGraphs() {
  for (const auto& [key, graph] : graphs_) Destroy(graph);
}

absl::Status CudaGraphs::Run(const Key& key,
                             cudaStream_t stream,
                             absl::FunctionRef<absl::Status()> body) {
  if (key.num_tokens > kMaxTokens) return body();
  const auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    if (graphs_.size() >= kMaxGraphs) {
      for (const auto& [old, graph] : graphs_) Destroy(graph);
      graphs_.clear();
    }
    graphs_.emplace(key, nullptr);
    return body();
  }
  if (found->second == nullptr) PREGATE_RETURN_IF_ERROR(Record(stream, body, found->second));
  return CudaStatus(cudaGraphLaunch(found->second, stream), "cudaGraphLaunch");
}

}  // namespace pregate
