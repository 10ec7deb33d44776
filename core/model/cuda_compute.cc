#include "core/model/cuda_compute.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/device/cuda_stream.h"
#include "core/kernel/attention_cuda.h"
#include "core/kernel/expert_mlp_cuda.h"
#include "core/kernel/norm_rope_cuda.h"
#include "core/kernel/router_cuda.h"
#include "core/kernel/sampling_cuda.h"
#include "core/model/cuda_graphs.h"
#include "core/model/cuda_memory.h"
#include "core/model/cuda_upload.h"

namespace pregate {
namespace {

constexpr uint64_t kDriverBytes = uint64_t{640} << 20;  // of a process on a GPU, its code included

absl::Status CheckShape(const ModelConfig& config) {
  const auto divides = [](const char* what, uint32_t size) {
    if (size % 32 == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", size, "; on a GPU 32 has to divide it: use --device cpu"));
  };
  PREGATE_RETURN_IF_ERROR(divides("hidden_size", config.hidden_size));
  PREGATE_RETURN_IF_ERROR(divides("moe_intermediate_size", config.expert_width));
  PREGATE_RETURN_IF_ERROR(divides("head_dim", config.head_dim));
  return absl::OkStatus();
}

class CudaCompute final : public ModelCompute, private GateLookahead {
 public:
  CudaCompute(const ModelConfig& config, const CudaComputeOptions& options, Backend& backend)
      : config_(config),
        options_(options),
        sizes_(SizesOf(config,
                       options.max_tokens,
                       options.max_context,
                       options.max_logits,
                       options.kv_block_size)),
        backend_(backend) {}
  ~CudaCompute() override {
    // Nothing may run on memory that goes.
    if (stream_ != nullptr) stream_->Synchronize().IgnoreError();
  }

  absl::Status Open(const ModelWeights& weights);

  absl::Status Begin(const StepTokens& tokens) override;
  absl::StatusOr<ChosenExperts> Attend(uint32_t layer) override;
  Stream& stream() override { return *stream_; }
  bool is_asynchronous() const override { return true; }
  absl::Status BeginExperts(const GroupedRows& rows) override;
  absl::Status RunExperts(absl::Span<const ReadyExpert> experts) override;
  absl::Status EndExperts(absl::Span<const uint32_t> missing) override;
  absl::StatusOr<Next> Logits(absl::Span<const uint32_t> tokens, uint32_t num_greedy) override;
  GateLookahead& gates_ahead() override { return *this; }
  uint64_t kv_bytes() const override { return kv_.size(); }
  uint64_t workspace_bytes() const override { return workspace_memory_.size(); }

 private:
  absl::Status Allocate();

  bool Score(uint32_t distance, absl::Span<float> probabilities) override;

  CudaKvCache KvCacheOf(uint32_t layer) const;
  // y (+)= matrix · x for all rows, of `out` numbers each.
  absl::Status Multiply(const uint16_t* matrix,
                        uint32_t in,
                        uint32_t out,
                        const uint16_t* x,
                        uint32_t num_rows,
                        ProductOutput output,
                        float* y);
  absl::Status Normalize(const float* weight, uint16_t* out);
  absl::Status RouteBy(const float* gate, uint32_t* expert_ids, float* weights);
  absl::Status RunAttention(uint32_t layer);
  // All of a block but its experts, after the sum of the last block's if there is one.
  absl::Status RunDense(uint32_t layer, const float* combine_weights);
  absl::Status CombineExperts(const float* weights);
  // What chooses for the block `distance` ahead; null where there is none.
  struct GateAhead {
    const float* gate = nullptr;
    const float* norm = nullptr;
  };
  GateAhead FindGateAhead(uint32_t distance) const;
  absl::Status ScoreAhead(uint32_t distance);
  // Logits of up to max_logits tokens, on the device.
  absl::Status RunHead(absl::Span<const uint32_t> tokens);
  void CopyLogits(size_t first_row, size_t num_rows, float* out);

  const ModelConfig& config_;
  const CudaComputeOptions options_;
  const Sizes sizes_;
  Backend& backend_;

  // Memory goes after the stream that works on it.
  Buffer dense_memory_, workspace_memory_, kv_, staging_memory_, shared_memory_, logits_memory_;
  std::unique_ptr<Stream> stream_;
  cudaStream_t cuda_ = nullptr;

  DenseWeights dense_;
  Workspace work_;
  TokenArrays staged_;  // on the host
  TokenArrays tokens_;  // on the device
  SharedArrays shared_;
  CudaGraphs graphs_;
  // Of shared_ and work_, as a pass begins.
  uint32_t* first_expert_ids_ = nullptr;
  uint32_t* second_expert_ids_ = nullptr;
  float* first_weights_ = nullptr;
  float* second_weights_ = nullptr;
  std::vector<float> many_logits_;  // of more tokens than max_logits

  uint32_t layer_ = 0;
  uint32_t num_tokens_ = 0;
  uint32_t max_position_ = 0;   // of the pass
  uint32_t num_parts_ = 0;      // of the context, up to there
  uint32_t table_width_ = 0;    // blocks in a row of the pass's block table
  bool is_to_combine_ = false;  // the last block's experts are not in the residual yet
  // Gates of blocks so far ahead, less one: whether they are computed, and were asked for.
  std::array<bool, kMaxAhead> has_ahead_ = {};
  std::array<bool, kMaxAhead> wants_ahead_ = {};
  GroupedRows rows_;
  uint32_t num_spans_ = 0;  // of the block, given to the device
};

absl::Status CudaCompute::Open(const ModelWeights& weights) {
  PREGATE_RETURN_IF_ERROR(CheckShape(config_));
  constexpr uint32_t kMostTokens = 65535;  // of a launch: one side of a grid
  if (options_.max_tokens > kMostTokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_batch_tokens: ", options_.max_tokens, "; on a GPU at most ", kMostTokens));
  }
  PREGATE_ASSIGN_OR_RETURN(stream_, backend_.CreateStream("compute"));
  cuda_ = CudaStreamOf(*stream_);
  PREGATE_RETURN_IF_ERROR(Allocate());
  PREGATE_RETURN_IF_ERROR(UploadWeights(config_, weights, sizes_, dense_, *stream_));
  return UploadRopeTables(config_, sizes_, work_, *stream_);
}

absl::Status CudaCompute::Allocate() {
  PREGATE_ASSIGN_OR_RETURN(
      dense_memory_,
      backend_.Allocate(MemoryKind::kDevice, dense_.LayOut(config_, sizes_, nullptr)));
  dense_.LayOut(config_, sizes_, dense_memory_.data());
  PREGATE_ASSIGN_OR_RETURN(
      workspace_memory_,
      backend_.Allocate(MemoryKind::kDevice, work_.LayOut(config_, sizes_, nullptr)));
  work_.LayOut(config_, sizes_, workspace_memory_.data());
  PREGATE_ASSIGN_OR_RETURN(staging_memory_,
                           backend_.Allocate(MemoryKind::kPinned, staged_.LayOut(sizes_, nullptr)));
  staged_.LayOut(sizes_, staging_memory_.data());
  tokens_.LayOut(sizes_, work_.tokens);
  PREGATE_ASSIGN_OR_RETURN(
      shared_memory_,
      backend_.Allocate(MemoryKind::kPinned, shared_.LayOut(config_, sizes_, nullptr)));
  shared_.LayOut(config_, sizes_, shared_memory_.data());
  first_expert_ids_ = shared_.expert_ids;
  second_expert_ids_ = shared_.next_expert_ids;
  first_weights_ = work_.weights;
  second_weights_ = work_.next_weights;
  PREGATE_ASSIGN_OR_RETURN(
      logits_memory_,
      backend_.Allocate(MemoryKind::kPinned,
                        size_t{sizes_.max_logits} * config_.vocab_size * sizeof(float)));
  const size_t kv_numbers = size_t{2} * config_.num_layers * options_.num_kv_blocks *
                            config_.num_kv_heads * options_.kv_block_size * config_.head_dim;
  PREGATE_ASSIGN_OR_RETURN(kv_,
                           backend_.Allocate(MemoryKind::kDevice, kv_numbers * sizeof(uint16_t)));
  return absl::OkStatus();
}

absl::Status CudaCompute::Begin(const StepTokens& tokens) {
  // What is staged may still be on its way, if the last pass failed.
  PREGATE_RETURN_IF_ERROR(stream_->Synchronize());
  num_tokens_ = static_cast<uint32_t>(tokens.ids.size());
  max_position_ = 0;
  for (const uint32_t position : tokens.positions)
    max_position_ = std::max(max_position_, position);
  // The same for all passes that end in the same part of the context: their launches are alike.
  num_parts_ = max_position_ / kAttentionPart + 1;
  max_position_ = num_parts_ * kAttentionPart - 1;
  table_width_ = max_position_ / options_.kv_block_size + 1;
  std::copy(tokens.ids.begin(), tokens.ids.end(), staged_.ids);
  std::copy(tokens.positions.begin(), tokens.positions.end(), staged_.positions);
  uint32_t num_sequences = 0;
  for (uint32_t i = 0; i < num_tokens_; ++i) {
    const TokenPlace& place = tokens.places[i];
    const bool is_first = i == 0 || tokens.places[i - 1].blocks != place.blocks;
    if (is_first) ++num_sequences;
    staged_.sequences[i] = num_sequences - 1;
    // A sequence's last token here needs the most blocks.
    if (i + 1 < num_tokens_ && tokens.places[i + 1].blocks == place.blocks) continue;
    std::copy_n(place.blocks,
                place.position / options_.kv_block_size + 1,
                staged_.block_table + size_t{num_sequences - 1} * table_width_);
  }
  const auto* const end = reinterpret_cast<const std::byte*>(staged_.block_table +
                                                             size_t{num_sequences} * table_width_);
  stream_->CopyAsync(work_.tokens, staging_memory_.data(), end - staging_memory_.data());
  is_to_combine_ = false;
  has_ahead_ = wants_ahead_;
  wants_ahead_ = {};
  // Each pass uses the same arrays for the same blocks, as its graphs do.
  shared_.expert_ids = first_expert_ids_;
  shared_.next_expert_ids = second_expert_ids_;
  work_.weights = first_weights_;
  work_.next_weights = second_weights_;
  return Embed({.table = dense_.embedding,
                .ids = tokens_.ids,
                .out = work_.residual,
                .num_rows = num_tokens_,
                .width = config_.hidden_size},
               cuda_);
}

CudaKvCache CudaCompute::KvCacheOf(uint32_t layer) const {
  const size_t numbers = size_t{options_.num_kv_blocks} * config_.num_kv_heads *
                         options_.kv_block_size * config_.head_dim;
  auto* const keys = reinterpret_cast<uint16_t*>(kv_.data()) + size_t{2} * layer * numbers;
  return {.keys = keys,
          .values = keys + numbers,
          .block_table = tokens_.block_table,
          .max_blocks = table_width_,
          .block_size = options_.kv_block_size,
          .num_kv_heads = config_.num_kv_heads,
          .head_dim = config_.head_dim};
}

absl::Status CudaCompute::Multiply(const uint16_t* matrix,
                                   uint32_t in,
                                   uint32_t out,
                                   const uint16_t* x,
                                   uint32_t num_rows,
                                   ProductOutput output,
                                   float* y) {
  const EncodedMatrix shape = {.out = out, .in = in, .row_bytes = in * sizeof(uint16_t)};
  return EncodedProduct({.codec = Codec::kNone,
                         .matrix = &shape,
                         .output = output,
                         .span = {.record = reinterpret_cast<const std::byte*>(matrix),
                                  .first = 0,
                                  .count = num_rows},
                         .x = x,
                         .out = y,
                         .max_rows = num_rows},
                        cuda_);
}

absl::Status CudaCompute::Normalize(const float* weight, uint16_t* out) {
  return RmsNorm({.x = work_.residual,
                  .weight = weight,
                  .out = out,
                  .num_rows = num_tokens_,
                  .width = config_.hidden_size,
                  .epsilon = config_.rms_norm_eps},
                 cuda_);
}

absl::Status CudaCompute::RouteBy(const float* gate, uint32_t* expert_ids, float* weights) {
  return Route({.x = work_.normalized,
                .gate = gate,
                .logits = work_.gate_logits,
                .expert_ids = expert_ids,
                .weights = weights,
                .num_tokens = num_tokens_,
                .width = config_.hidden_size,
                .num_experts = config_.num_experts,
                .num_chosen = config_.num_experts_per_token,
                .renormalize = config_.renormalize_weights},
               cuda_);
}

absl::Status CudaCompute::RunAttention(uint32_t layer) {
  const DenseLayer& weights = dense_.layers[layer];
  PREGATE_RETURN_IF_ERROR(Normalize(weights.input_norm, work_.normalized));
  PREGATE_RETURN_IF_ERROR(Multiply(weights.qkv,
                                   config_.hidden_size,
                                   sizes_.qkv,
                                   work_.normalized,
                                   num_tokens_,
                                   ProductOutput::kFloat,
                                   work_.qkv));
  PREGATE_RETURN_IF_ERROR(PrepareQkv({.qkv = work_.qkv,
                                      .query_norm = weights.query_norm,
                                      .key_norm = weights.key_norm,
                                      .cosines = work_.cosines,
                                      .sines = work_.sines,
                                      .positions = tokens_.positions,
                                      .sequences = tokens_.sequences,
                                      .num_tokens = num_tokens_,
                                      .num_heads = config_.num_heads,
                                      .epsilon = config_.rms_norm_eps,
                                      .cache = KvCacheOf(layer)},
                                     cuda_));
  for (uint32_t first = 0; first < num_tokens_; first += kAttentionTokens) {
    PREGATE_RETURN_IF_ERROR(
        Attention({.queries = work_.qkv + size_t{first} * sizes_.qkv,
                   .positions = tokens_.positions + first,
                   .sequences = tokens_.sequences + first,
                   .scratch = work_.attention_scratch,
                   .out = work_.attended + size_t{first} * sizes_.query,
                   .num_tokens = std::min(num_tokens_ - first, kAttentionTokens),
                   .query_stride = sizes_.qkv,
                   .num_heads = config_.num_heads,
                   .max_position = max_position_,
                   .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                   .cache = KvCacheOf(layer)},
                  cuda_));
  }
  return Multiply(weights.output,
                  sizes_.query,
                  config_.hidden_size,
                  work_.attended,
                  num_tokens_,
                  ProductOutput::kAdded,
                  work_.residual);
}

absl::StatusOr<ChosenExperts> CudaCompute::Attend(uint32_t layer) {
  const DenseLayer& weights = dense_.layers[layer];
  const float* const combine_weights = is_to_combine_ ? work_.weights : nullptr;
  is_to_combine_ = false;
  layer_ = layer;
  if (weights.gate == nullptr) {
    std::swap(shared_.expert_ids, shared_.next_expert_ids);
    std::swap(work_.weights, work_.next_weights);
  }
  PREGATE_RETURN_IF_ERROR(
      graphs_.Run({.layer = layer,
                   .num_tokens = num_tokens_,
                   .num_parts = num_parts_,
                   .gates_ahead = (has_ahead_[0] ? 1u : 0u) + (has_ahead_[1] ? 2u : 0u)},
                  cuda_,
                  [&] { return RunDense(layer, combine_weights); }));
  // The one time a block that the host waits for the device; also, the places and spans of the
  // block before are no longer on their way.
  PREGATE_RETURN_IF_ERROR(stream_->Synchronize());
  const size_t num_places = size_t{num_tokens_} * config_.num_experts_per_token;
  ChosenExperts chosen = {.own = absl::MakeSpan(shared_.expert_ids, num_places), .next = {}};
  if (weights.pregate != nullptr) {
    chosen.next = absl::MakeSpan(shared_.next_expert_ids, num_places);
  }
  return chosen;
}

absl::Status CudaCompute::RunDense(uint32_t layer, const float* combine_weights) {
  const DenseLayer& weights = dense_.layers[layer];
  if (combine_weights != nullptr) PREGATE_RETURN_IF_ERROR(CombineExperts(combine_weights));
  PREGATE_RETURN_IF_ERROR(RunAttention(layer));
  PREGATE_RETURN_IF_ERROR(Normalize(weights.post_attention_norm, work_.normalized));
  if (weights.gate != nullptr) {
    PREGATE_RETURN_IF_ERROR(RouteBy(weights.gate, shared_.expert_ids, work_.weights));
  }
  if (weights.pregate != nullptr) {
    PREGATE_RETURN_IF_ERROR(RouteBy(weights.pregate, shared_.next_expert_ids, work_.next_weights));
  }
  for (uint32_t i = 0; i < kMaxAhead; ++i) {
    if (has_ahead_[i]) PREGATE_RETURN_IF_ERROR(ScoreAhead(i + 1));
  }
  return absl::OkStatus();
}

absl::Status CudaCompute::BeginExperts(const GroupedRows& rows) {
  rows_ = rows;
  num_spans_ = 0;
  std::copy(rows.places.begin(), rows.places.end(), shared_.places);
  if (rows.places.size() > kFewPlaces) {
    stream_->CopyAsync(reinterpret_cast<std::byte*>(work_.places),
                       reinterpret_cast<const std::byte*>(shared_.places),
                       rows.places.size() * sizeof(uint32_t));
  }
  return absl::OkStatus();
}

absl::Status CudaCompute::RunExperts(absl::Span<const ReadyExpert> experts) {
  for (uint32_t encoding = 0; encoding < options_.layouts.size(); ++encoding) {
    ExpertSpan* const spans = shared_.spans + num_spans_;
    uint32_t count = 0;
    uint32_t max_rows = 0;
    for (const ReadyExpert& ready : experts) {
      if (ready.encoding != encoding) continue;
      const uint32_t first = rows_.first[ready.expert];
      const uint32_t num_rows = rows_.first[ready.expert + 1] - first;
      spans[count++] = {.record = ready.record, .first = first, .count = num_rows};
      max_rows = std::max(max_rows, num_rows);
    }
    ExpertSpan* const device_spans = work_.spans + num_spans_;
    num_spans_ += count;
    if (count > kFewSpans) {
      stream_->CopyAsync(reinterpret_cast<std::byte*>(device_spans),
                         reinterpret_cast<const std::byte*>(spans),
                         count * sizeof(ExpertSpan));
    }
    PREGATE_RETURN_IF_ERROR(ExpertMlp({.layout = &options_.layouts[encoding],
                                       .activation = config_.family->activation,
                                       .experts = device_spans,
                                       .host_experts = spans,
                                       .host_places = shared_.places,
                                       .places = work_.places,
                                       .x = work_.normalized,
                                       .inner = work_.inner,
                                       .out = work_.expert_out,
                                       .num_experts = count,
                                       .num_chosen = config_.num_experts_per_token,
                                       .max_rows = max_rows},
                                      cuda_));
  }
  return absl::OkStatus();
}

absl::Status CudaCompute::EndExperts(absl::Span<const uint32_t> missing) {
  // Rows that nobody computed must not hold what an earlier step left.
  for (const uint32_t expert : missing) {
    for (uint32_t row = rows_.first[expert]; row < rows_.first[expert + 1]; ++row) {
      float* const out = work_.expert_out + size_t{rows_.places[row]} * config_.hidden_size;
      const cudaError_t error = cudaMemsetAsync(out, 0, config_.hidden_size * sizeof(float), cuda_);
      if (error != cudaSuccess) {
        return absl::InternalError(absl::StrCat("cudaMemsetAsync: ", cudaGetErrorString(error)));
      }
    }
  }
  is_to_combine_ = true;  // with what comes next
  return absl::OkStatus();
}

absl::Status CudaCompute::CombineExperts(const float* weights) {
  return Combine({.expert_out = work_.expert_out,
                  .weights = weights,
                  .sum = work_.residual,
                  .num_tokens = num_tokens_,
                  .num_chosen = config_.num_experts_per_token,
                  .width = config_.hidden_size},
                 cuda_);
}

CudaCompute::GateAhead CudaCompute::FindGateAhead(uint32_t distance) const {
  const size_t target = size_t{layer_} + distance;
  if (distance == 0 || target >= dense_.layers.size()) return {};
  const DenseLayer& own = dense_.layers[target];
  if (own.gate != nullptr) return {.gate = own.gate, .norm = own.post_attention_norm};
  // A pre-gate reads what its own block's experts read.
  const DenseLayer& before = dense_.layers[target - 1];
  return {.gate = before.pregate, .norm = before.post_attention_norm};
}

absl::Status CudaCompute::ScoreAhead(uint32_t distance) {
  const GateAhead ahead = FindGateAhead(distance);
  if (ahead.gate == nullptr) return absl::OkStatus();
  PREGATE_RETURN_IF_ERROR(Normalize(ahead.norm, work_.ahead));
  return Route({.x = work_.ahead,
                .gate = ahead.gate,
                .logits = work_.gate_logits,
                .expert_ids = shared_.first_choice,
                .weights = work_.ahead_weights,
                .probabilities = shared_.probabilities[distance - 1],
                .num_tokens = num_tokens_,
                .width = config_.hidden_size,
                .num_experts = config_.num_experts,
                .num_chosen = 1},
               cuda_);
}

bool CudaCompute::Score(uint32_t distance, absl::Span<float> probabilities) {
  if (distance > kMaxAhead || FindGateAhead(distance).gate == nullptr) return false;
  PREGATE_CHECK(probabilities.size() == size_t{num_tokens_} * config_.num_experts);
  // Who asks once asks in every block: from the next pass on the gates' graphs have it.
  wants_ahead_[distance - 1] = true;
  if (!has_ahead_[distance - 1]) return false;
  std::copy_n(shared_.probabilities[distance - 1], probabilities.size(), probabilities.begin());
  return true;
}

absl::Status CudaCompute::RunHead(absl::Span<const uint32_t> tokens) {
  if (std::exchange(is_to_combine_, false)) {
    PREGATE_RETURN_IF_ERROR(CombineExperts(work_.weights));
  }
  const auto count = static_cast<uint32_t>(tokens.size());
  std::copy(tokens.begin(), tokens.end(), staged_.logit_rows);
  stream_->CopyAsync(reinterpret_cast<std::byte*>(tokens_.logit_rows),
                     reinterpret_cast<const std::byte*>(staged_.logit_rows),
                     count * sizeof(uint32_t));
  PREGATE_RETURN_IF_ERROR(RmsNorm({.x = work_.residual,
                                   .rows = tokens_.logit_rows,
                                   .weight = dense_.final_norm,
                                   .out = work_.normalized,
                                   .num_rows = count,
                                   .width = config_.hidden_size,
                                   .epsilon = config_.rms_norm_eps},
                                  cuda_));
  return Multiply(dense_.head,
                  config_.hidden_size,
                  sizes_.vocab,
                  work_.normalized,
                  count,
                  ProductOutput::kFloat,
                  work_.logits);
}

void CudaCompute::CopyLogits(size_t first_row, size_t num_rows, float* out) {
  const float* const from = work_.logits + first_row * sizes_.vocab;
  const size_t row_bytes = config_.vocab_size * sizeof(float);
  // Rows lie one behind the other, or each in whole tiles.
  const bool is_whole = sizes_.vocab == config_.vocab_size;
  const size_t num_copies = is_whole ? std::min<size_t>(1, num_rows) : num_rows;
  for (size_t row = 0; row < num_copies; ++row) {
    stream_->CopyAsync(reinterpret_cast<std::byte*>(out + row * config_.vocab_size),
                       reinterpret_cast<const std::byte*>(from + row * sizes_.vocab),
                       is_whole ? num_rows * row_bytes : row_bytes);
  }
}

absl::StatusOr<ModelCompute::Next> CudaCompute::Logits(absl::Span<const uint32_t> tokens,
                                                       uint32_t num_greedy) {
  const size_t num_rows = tokens.size() - num_greedy;
  auto* out = reinterpret_cast<float*>(logits_memory_.data());
  if (num_rows > sizes_.max_logits) {
    many_logits_.resize(num_rows * config_.vocab_size);
    out = many_logits_.data();
  }
  Next next;
  size_t copied = 0;
  while (!tokens.empty()) {
    const absl::Span<const uint32_t> some =
        tokens.first(std::min<size_t>(tokens.size(), sizes_.max_logits));
    const auto some_greedy = static_cast<uint32_t>(std::min<size_t>(num_greedy, some.size()));
    PREGATE_RETURN_IF_ERROR(RunHead(some));
    PREGATE_RETURN_IF_ERROR(MostLikely({.logits = work_.logits,
                                        .token_ids = shared_.greedy,
                                        .num_rows = some_greedy,
                                        .vocab_size = config_.vocab_size,
                                        .stride = sizes_.vocab},
                                       cuda_));
    const size_t some_rows = some.size() - some_greedy;
    CopyLogits(some_greedy, some_rows, out + copied * config_.vocab_size);
    copied += some_rows;
    PREGATE_RETURN_IF_ERROR(stream_->Synchronize());
    for (const uint32_t token_id : absl::MakeConstSpan(shared_.greedy, some_greedy)) {
      if (token_id == kNoToken) {
        next.greedy.push_back(absl::InternalError("a logit is not a finite number"));
      } else {
        next.greedy.push_back(token_id);
      }
    }
    num_greedy -= some_greedy;
    tokens.remove_prefix(some.size());
  }
  PREGATE_RETURN_IF_ERROR(stream_->Synchronize());
  next.logits = absl::MakeConstSpan(out, num_rows * config_.vocab_size);
  return next;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelCompute>> CreateCudaCompute(const ModelConfig& config,
                                                                const ModelWeights& weights,
                                                                const CudaComputeOptions& options,
                                                                Backend& backend) {
  auto compute = std::make_unique<CudaCompute>(config, options, backend);
  PREGATE_RETURN_IF_ERROR(compute->Open(weights));
  return compute;
}

void DemandOnGpu(const ModelConfig& config, const EngineOptions& options, MemoryDemand& demand) {
  const Sizes sizes = SizesOf(config,
                              options.max_batch_tokens,
                              demand.max_context,
                              options.max_running,
                              options.kv_block_size);
  demand.dense_bytes = DenseWeights().LayOut(config, sizes, nullptr);
  demand.workspace_bytes = Workspace().LayOut(config, sizes, nullptr);
  demand.context_bytes = kDriverBytes;
}

}  // namespace pregate
