// A pass on the CPU: LibTorch's matrix products and our kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/base/options.h"
#include "core/device/cpu_backend.h"
#include "core/kernel/codec.h"
#include "core/model/attention_layer.h"
#include "core/model/checkpoint.h"
#include "core/model/compute.h"
#include "core/model/expert_network.h"
#include "core/model/gates_ahead.h"
#include "core/model/kv_cache.h"
#include "core/model/model_config.h"
#include "core/model/product.h"

namespace pregate {

class CpuCompute final : public ModelCompute {
 public:
  struct Options {
    Dtype dtype = Dtype::kFloat32;
    CpuContext cpu;
    std::vector<int64_t> row_counts;    // of products: see Product
    std::vector<RecordLayout> layouts;  // of each encoding of the experts
    uint32_t max_tokens = 0;            // in a pass
    uint32_t max_context = 0;
    uint32_t kv_block_size = 0;
    uint32_t num_kv_blocks = 0;
  };

  // Allocates all that a pass needs, but for logits of more tokens than were ever asked for.
  // `config` outlives this.
  CpuCompute(const ModelConfig& config, ModelWeights weights, Options options);
  CpuCompute(const CpuCompute&) = delete;
  CpuCompute& operator=(const CpuCompute&) = delete;

  absl::Status Begin(const StepTokens& tokens) override;
  absl::StatusOr<ChosenExperts> Attend(uint32_t layer) override;
  Stream& stream() override { return stream_; }
  bool is_asynchronous() const override { return false; }
  absl::Status BeginExperts(const GroupedRows& rows) override;
  absl::Status RunExperts(absl::Span<const ReadyExpert> experts) override;
  absl::Status EndExperts(absl::Span<const uint32_t> missing) override;
  absl::StatusOr<Next> Logits(absl::Span<const uint32_t> tokens, uint32_t num_greedy) override;
  GateLookahead& gates_ahead() override { return gates_ahead_; }
  uint64_t kv_bytes() const override { return cache_.bytes(); }
  uint64_t workspace_bytes() const override;

  const ModelConfig& config() const { return config_; }
  const ModelWeights& weights() const { return weights_; }
  const Options& options() const { return options_; }

  // The shapes of the products.
  static std::vector<MatrixShape> ProductShapes(const ModelConfig& config);

 private:
  // Which experts a block's tokens go to.
  struct Routed {
    at::Tensor expert_ids;  // int32 [max_tokens, experts_per_token], best first
    at::Tensor weights;     // float32, like expert_ids
  };

  Routed MakeRouted() const;
  void Normalize(const at::Tensor& weight, const float* x, int64_t num_rows, float* out) const;
  void Route(const at::Tensor& gate, Routed& routed);
  absl::Span<uint32_t> IdsOf(const Routed& routed) const;

  const ModelConfig& config_;
  const ModelWeights weights_;
  const Options options_;
  CallerStream stream_;
  KvCache cache_;
  Product product_;
  AttentionLayer attention_;
  ExpertNetwork network_;
  GatesAhead gates_ahead_;

  StepTokens tokens_;
  GroupedRows rows_;
  std::vector<uint32_t> source_tokens_;          // [rows]: the token of each
  at::Tensor residual_, normalized_, attended_;  // [max_tokens, hidden]
  at::Tensor gate_logits_;                       // [max_tokens, num_experts]
  at::Tensor expert_in_, expert_out_;            // [max rows, hidden], in the order of the rows
  at::Tensor logits_;                            // [most logit tokens yet, vocab]
  Routed routed_;                                // of the present block
  Routed next_routed_;                           // chosen by its pre-gate
};

}  // namespace pregate
