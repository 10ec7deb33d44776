#include "core/model/torch_runner.h"

#include <exception>
#include <new>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/kernel/cpu_isa.h"
#include "core/kernel/sampling.h"
#include "core/model/aten.h"
#include "core/model/checkpoint.h"
#include "core/model/cpu_backend.h"
#include "core/model/memory_plan.h"
#include "core/model/model_config.h"
#include "core/model/product_bound.h"
#include "core/model/transformer.h"
#include "core/storage/safetensors.h"

namespace pregate {
namespace {

// Calls `body`, which returns a Status or StatusOr; what LibTorch throws becomes a Status. The only
// place that catches.
template <typename Body>
auto Guarded(Body&& body) -> decltype(body()) {
  try {
    const c10::InferenceMode no_gradients;
    return body();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what()));
  }
}

absl::Status CheckDevice(const std::string& device) {
  if (device == "auto" || device == "cpu") return absl::OkStatus();
  if (absl::StartsWith(device, "cuda")) {
    return absl::FailedPreconditionError(absl::StrCat(
        "device: ", device, " was asked for, but this build has no CUDA backend; use cpu"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("device: '", device, "' is not one of auto, cpu, cuda, cuda:N"));
}

absl::StatusOr<uint32_t> ChooseContext(const EngineOptions& options, const ModelConfig& config) {
  if (options.max_context == 0) return config.max_positions;
  if (options.max_context <= config.max_positions) return options.max_context;
  return absl::InvalidArgumentError(absl::StrCat("max_context: ",
                                                 options.max_context,
                                                 " is more than the model's ",
                                                 config.max_positions,
                                                 " (max_position_embeddings)"));
}

absl::StatusOr<Dtype> ChooseDtype(const EngineOptions& options,
                                  const ModelConfig& config,
                                  const Safetensors& files) {
  if (options.dtype == DtypeName(Dtype::kFloat32)) return Dtype::kFloat32;
  if (options.dtype == DtypeName(Dtype::kBfloat16)) return Dtype::kBfloat16;
  if (options.dtype == "auto") return CheckpointDtype(config, files);
  return absl::InvalidArgumentError(
      absl::StrCat("dtype: '", options.dtype, "' is not one of auto, float32, bfloat16"));
}

ModelDescription Describe(const EngineOptions& options,
                          const ModelConfig& config,
                          const ModelWeights& weights,
                          Dtype dtype,
                          uint32_t max_context) {
  return {.name = ServedModelName(options),
          .family = std::string(config.family->model_type),
          .dtype = std::string(DtypeName(dtype)),
          .vocab_size = config.vocab_size,
          .max_context = max_context,
          .num_layers = config.num_layers,
          .num_experts = config.num_experts,
          .num_experts_per_token = config.num_experts_per_token,
          .num_parameters = weights.num_parameters,
          .eos_token_ids = config.eos_token_ids,
          .default_sampling = config.default_sampling};
}

// The row counts for products, found and logged.
std::vector<int64_t> CheckRowCounts(const ModelConfig& config, Dtype dtype, const Logger& logger) {
  std::vector<int64_t> row_counts = FindExactRowCounts(dtype, Transformer::ProductShapes(config));
  const std::vector<LogField> fields = {{"dtype", DtypeName(dtype)},
                                        {"rows", absl::StrJoin(row_counts, ",")}};
  if (row_counts.size() == 1) {
    logger.Warning("on this CPU products give the same bits only in tiles of one size", fields);
  } else {
    logger.Info("products give the same bits for these numbers of rows", fields);
  }
  return row_counts;
}

uint64_t ExpertBytes(const ModelWeights& weights) {
  uint64_t bytes = 0;
  for (const LayerWeights& layer : weights.layers) {
    for (const ExpertWeights& expert : layer.experts) {
      for (const Matrix* matrix : {&expert.up, &expert.gate, &expert.down}) {
        if (matrix->defined()) bytes += matrix->nbytes();
      }
    }
  }
  return bytes;
}

// Of the weights that one token reads.
uint64_t BytesPerToken(const ModelWeights& weights, const ModelConfig& config) {
  const uint64_t expert_bytes = ExpertBytes(weights);
  return weights.mapped_bytes + weights.copied_bytes - expert_bytes +
         expert_bytes / config.num_experts * config.num_experts_per_token;
}

// Bytes by pool.
std::vector<std::pair<const char*, uint64_t>> MemoryOf(const Transformer& transformer) {
  const ModelWeights& weights = transformer.weights();
  const uint64_t expert_bytes = ExpertBytes(weights);
  return {{"dense", weights.mapped_bytes + weights.copied_bytes - expert_bytes},
          {"expert", expert_bytes},
          {"kv", transformer.kv_bytes()},
          {"workspace", transformer.workspace_bytes()}};
}

}  // namespace

// What Run needs from step to step, kept so that a step allocates little.
struct TorchRunner::StepScratch {
  explicit StepScratch(const CpuContext& cpu) : sampler(cpu) {}
  Sampler sampler;
  std::vector<TokenRun> runs;
  std::vector<uint32_t> logit_tokens;
};

TorchRunner::TorchRunner(ModelDescription description,
                         const Limits& limits,
                         uint32_t num_threads,
                         std::unique_ptr<Transformer> transformer)
    : description_(std::move(description)),
      limits_(limits),
      num_threads_(num_threads),
      transformer_(std::move(transformer)),
      memory_(MemoryOf(*transformer_)),
      scratch_(std::make_unique<StepScratch>(transformer_->options().cpu)) {}

TorchRunner::~TorchRunner() = default;

absl::StatusOr<std::unique_ptr<TorchRunner>> TorchRunner::Load(const EngineOptions& options,
                                                               const Logger& logger) {
  return Guarded([&] { return LoadUnguarded(options, logger); });
}

absl::StatusOr<std::unique_ptr<TorchRunner>> TorchRunner::LoadUnguarded(
    const EngineOptions& options, const Logger& logger) {
  if (options.model.empty()) return absl::InvalidArgumentError("model: no folder is given");
  PREGATE_RETURN_IF_ERROR(CheckDevice(options.device));
  PREGATE_ASSIGN_OR_RETURN(const CpuIsa isa,
                           ChooseCpuIsa(options.cpu_isa, HighestCpuIsa(ReadCpuFeatures())));
  PREGATE_ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(options.model));
  PREGATE_ASSIGN_OR_RETURN(const uint32_t max_context, ChooseContext(options, config));
  PREGATE_ASSIGN_OR_RETURN(Safetensors opened, Safetensors::OpenFolder(options.model));
  auto files = std::make_unique<const Safetensors>(std::move(opened));
  PREGATE_ASSIGN_OR_RETURN(const Dtype dtype, ChooseDtype(options, config, *files));

  LimitLibTorch(isa);
  const CpuContext cpu = {.kernels = &CpuKernelsFor(isa), .parallel_for = LibTorchParallelFor()};
  PREGATE_ASSIGN_OR_RETURN(ModelWeights weights,
                           LoadWeights(std::move(files), config, dtype, cpu, logger));
  const uint32_t num_threads = ChooseThreads(options.threads, BytesPerToken(weights, config));
  UseThreads(num_threads);
  logger.Info("model read",
              {{"family", config.family->model_type},
               {"parameters", weights.num_parameters},
               {"dtype", DtypeName(dtype)},
               {"mapped", FormatBytes(weights.mapped_bytes)},
               {"copied", FormatBytes(weights.copied_bytes)},
               {"cpu_isa", CpuIsaName(isa)},
               {"threads", num_threads}});

  const uint64_t bytes_per_block = KvCache::BytesPerBlock(config, dtype, options.kv_block_size);
  PREGATE_ASSIGN_OR_RETURN(const uint32_t num_kv_blocks,
                           PlanKvBlocks({.max_running = options.max_running,
                                         .max_context = max_context,
                                         .block_size = options.kv_block_size,
                                         .bytes_per_block = bytes_per_block},
                                        HostMemoryBytes()));
  logger.Info("KV cache",
              {{"blocks", num_kv_blocks},
               {"tokens", uint64_t{num_kv_blocks} * options.kv_block_size},
               {"bytes", FormatBytes(num_kv_blocks * bytes_per_block)}});

  ModelDescription description = Describe(options, config, weights, dtype, max_context);
  const Limits limits = {.vocab_size = config.vocab_size,
                         .max_context = max_context,
                         .kv_block_size = options.kv_block_size,
                         .num_kv_blocks = num_kv_blocks};
  Transformer::Options transformer_options = {.dtype = dtype,
                                              .cpu = cpu,
                                              .row_counts = CheckRowCounts(config, dtype, logger),
                                              .max_tokens = options.max_batch_tokens,
                                              .max_context = max_context,
                                              .kv_block_size = options.kv_block_size,
                                              .num_kv_blocks = num_kv_blocks};
  auto transformer = std::make_unique<Transformer>(
      std::move(config), std::move(weights), std::move(transformer_options));
  return std::unique_ptr<TorchRunner>(
      new TorchRunner(std::move(description), limits, num_threads, std::move(transformer)));
}

uint32_t TorchRunner::max_batch_tokens() const { return transformer_->options().max_tokens; }

absl::StatusOr<absl::Span<const float>> TorchRunner::Forward(const ForwardBatch& batch,
                                                             Routing* routing) {
  return Guarded([&] {
    UseThreads(num_threads_);
    return transformer_->Forward(batch, routing);
  });
}

absl::StatusOr<double> TorchRunner::MeasureProducts(const Routing& routing,
                                                    uint32_t num_logits,
                                                    uint32_t repetitions) {
  return Guarded([&]() -> absl::StatusOr<double> {
    UseThreads(num_threads_);
    return MeasureProductSeconds(*transformer_, routing, num_logits, repetitions);
  });
}

SequenceResult TorchRunner::Sample(const SequenceStep& step, absl::Span<const float> logits) {
  const Sampling& sampling = *step.sampling;
  const absl::StatusOr<uint32_t> token_id =
      scratch_->sampler.Draw(logits,
                             {.temperature = sampling.temperature,
                              .top_k = sampling.top_k,
                              .top_p = sampling.top_p,
                              .seed = sampling.seed,
                              .position = step.first_position + step.token_ids.size()});
  if (!token_id.ok()) return {.status = token_id.status(), .token = {}};
  GeneratedToken token{.token_id = *token_id, .logprob = {}};
  if (sampling.logprobs.has_value()) {
    const Sampler::Logprobs logprobs =
        scratch_->sampler.LogprobsOf(logits, *token_id, *sampling.logprobs);
    token.logprob = TokenLogprob{.logprob = logprobs.chosen, .top = {}};
    for (const auto& [id, logprob] : logprobs.top) {
      token.logprob->top.push_back({.token_id = id, .logprob = logprob});
    }
  }
  return {.status = absl::OkStatus(), .token = std::move(token)};
}

absl::StatusOr<StepResult> TorchRunner::Run(const StepPlan& plan) {
  std::vector<TokenRun>& runs = scratch_->runs;
  std::vector<uint32_t>& logit_tokens = scratch_->logit_tokens;
  runs.clear();
  logit_tokens.clear();
  uint32_t num_tokens = 0;
  for (const SequenceStep& step : plan.sequences) {
    runs.push_back({.token_ids = step.token_ids,
                    .first_position = step.first_position,
                    .blocks = step.blocks});
    num_tokens += static_cast<uint32_t>(step.token_ids.size());
    if (step.sampling != nullptr) logit_tokens.push_back(num_tokens - 1);
  }
  PREGATE_ASSIGN_OR_RETURN(const absl::Span<const float> logits,
                           Forward({.runs = runs, .logit_tokens = logit_tokens}, nullptr));

  StepResult result;
  result.sequences.reserve(plan.sequences.size());
  size_t row = 0;
  for (const SequenceStep& step : plan.sequences) {
    if (step.sampling == nullptr) {
      result.sequences.emplace_back();
      continue;
    }
    result.sequences.push_back(
        Sample(step, logits.subspan(row++ * limits_.vocab_size, limits_.vocab_size)));
  }
  return result;
}

void TorchRunner::VisitStats(StatsVisitor& visitor) const {
  for (const auto& [pool, bytes] : memory_) {
    visitor.OnGauge("device_memory_bytes",
                    "Memory of the device that computes, by use.",
                    {{"pool", pool}},
                    static_cast<double>(bytes));
  }
}

}  // namespace pregate
