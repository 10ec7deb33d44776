#include "core/model/torch_runner.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/device/host_info.h"
#include "core/device/open_backend.h"
#include "core/kernel/cpu_isa.h"
#include "core/kernel/sampling.h"
#include "core/model/aten.h"
#include "core/model/checkpoint.h"
#include "core/model/cpu_compute.h"
#include "core/model/cuda_compute.h"
#include "core/model/guarded.h"
#include "core/model/model_config.h"
#include "core/model/open_packs.h"
#include "core/model/pack_experts.h"
#include "core/model/product_bound.h"
#include "core/model/torch_cpu.h"
#include "core/model/torch_profiled_model.h"
#include "core/model/transformer.h"
#include "core/storage/safetensors.h"

namespace pregate {
namespace {

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
                                  const Safetensors& files,
                                  bool on_gpu) {
  if (on_gpu) {
    if (options.dtype == "auto") return Dtype::kBfloat16;
    if (options.dtype == DtypeName(Dtype::kFloat32)) {
      return absl::FailedPreconditionError(
          "dtype: a GPU computes in bfloat16; give --dtype bfloat16, or --device cpu for float32");
    }
  }
  if (options.dtype == DtypeName(Dtype::kFloat32)) return Dtype::kFloat32;
  if (options.dtype == DtypeName(Dtype::kBfloat16)) return Dtype::kBfloat16;
  if (options.dtype == "auto") return CheckpointDtype(config, files);
  return absl::InvalidArgumentError(
      absl::StrCat("dtype: '", options.dtype, "' is not one of auto, float32, bfloat16"));
}

ModelDescription Describe(const EngineOptions& options,
                          const ModelConfig& config,
                          uint64_t num_parameters,
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
          .num_parameters = num_parameters,
          .eos_token_ids = config.eos_token_ids,
          .default_sampling = config.default_sampling};
}

// The row counts for products, found and logged.
std::vector<int64_t> CheckRowCounts(const ModelConfig& config, Dtype dtype, const Logger& logger) {
  std::vector<int64_t> row_counts = FindExactRowCounts(dtype, CpuCompute::ProductShapes(config));
  const std::vector<LogField> fields = {{"dtype", DtypeName(dtype)},
                                        {"rows", absl::StrJoin(row_counts, ",")}};
  if (row_counts.size() == 1) {
    logger.Warning("on this CPU products give the same bits only in tiles of one size", fields);
  } else {
    logger.Info("products give the same bits for these numbers of rows", fields);
  }
  return row_counts;
}

void LogPlan(const MemoryPlan& plan, const Logger& logger) {
  logger.Info("memory",
              {{"dense", FormatBytes(plan.dense_bytes)},
               {"kv", FormatBytes(plan.kv_bytes)},
               {"kv_blocks", plan.num_kv_blocks},
               {"workspace", FormatBytes(plan.workspace_bytes)},
               {"expert_slots", FormatBytes(plan.slot_bytes())},
               {"host_experts", FormatBytes(plan.host_tier_bytes)}});
  logger.Info("experts",
              {{"codec", plan.smaller_codec.has_value() ? "adaptive" : CodecName(plan.codec)},
               {"memory_strategy", plan.slots.strategy},
               {"slots", plan.slots.is_unified ? 0 : plan.slots.num_slots},
               {"of", plan.num_records},
               {"in_host_memory", plan.host_holds_all() ? "all" : "some, the others on disk"}});
}

// A model folder, read as far as its memory is planned from it.
struct Prepared {
  CpuIsa isa;
  ModelConfig config;
  std::unique_ptr<const Safetensors> files;
  Dtype dtype;
  uint32_t max_context;
  MemoryPlan plan;
  std::unique_ptr<Backend> backend;
};

absl::StatusOr<std::unique_ptr<Backend>> OpenDevice(const EngineOptions& options) {
  std::optional<SimulatedLink> link;
  if (!options.experts.simulated_link.empty()) {
    PREGATE_ASSIGN_OR_RETURN(link, ParseSimulatedLink(options.experts.simulated_link));
  }
  return OpenBackend(options.device, link);
}

absl::StatusOr<Prepared> Prepare(const EngineOptions& options) {
  if (options.model.empty()) return absl::InvalidArgumentError("model: no folder is given");
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, OpenDevice(options));
  const bool on_gpu = !backend->is_host();
  PREGATE_ASSIGN_OR_RETURN(const CpuIsa isa,
                           ChooseCpuIsa(options.cpu_isa, HighestCpuIsa(ReadCpuFeatures())));
  PREGATE_ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(options.model));
  PREGATE_ASSIGN_OR_RETURN(const uint32_t max_context, ChooseContext(options, config));
  PREGATE_ASSIGN_OR_RETURN(Safetensors files, OpenCheckpoint(options.model));
  PREGATE_ASSIGN_OR_RETURN(const Dtype dtype, ChooseDtype(options, config, files, on_gpu));
  ExpertOptions experts = options.experts;
  PREGATE_ASSIGN_OR_RETURN(experts.codec, ExpertCodecOf(options));
  MemoryDemand demand = DemandOf(config, dtype, max_context, options);
  MachineMemory machine = {.host_bytes = HostMemoryBytes(), .gpu_bytes = {}};
  if (on_gpu) {
    machine.gpu_bytes = backend->memory().free_bytes;
    DemandOnGpu(config, options, demand);
  }
  PREGATE_ASSIGN_OR_RETURN(MemoryPlan plan, PlanMemory(demand, experts, machine));
  return Prepared{.isa = isa,
                  .config = std::move(config),
                  .files = std::make_unique<const Safetensors>(std::move(files)),
                  .dtype = dtype,
                  .max_context = max_context,
                  .plan = std::move(plan),
                  .backend = std::move(backend)};
}

// Whether the most likely token is all that the step wants.
bool IsGreedy(const SequenceStep& step) {
  return step.sampling->temperature <= 0 && !step.sampling->logprobs.has_value();
}

uint64_t ExpertParameters(const ModelConfig& config) {
  return uint64_t{config.num_layers} * config.num_experts * (config.family->is_gated() ? 3 : 2) *
         config.hidden_size * config.expert_width;
}

// Of the weights that one token reads.
uint64_t BytesPerToken(const MemoryPlan& plan, const ModelConfig& config) {
  return plan.dense_bytes +
         uint64_t{config.num_layers} * config.num_experts_per_token * plan.record_bytes;
}

absl::StatusOr<std::unique_ptr<ExpertOffload>> OpenExperts(const EngineOptions& options,
                                                           Prepared& model,
                                                           std::vector<ExpertPack> packs,
                                                           const Clock& clock,
                                                           const Logger& logger) {
  return ExpertOffload::Create(
      {.flags = options.experts,
       .model = {.name = ServedModelName(options),
                 .num_layers = model.config.num_layers,
                 .num_experts = model.config.num_experts,
                 .experts_per_token = model.config.num_experts_per_token,
                 .is_pregated = model.config.use_pregate},
       .slots = model.plan.slots,
       .slot_needs = model.plan.slot_needs,
       // Of all of them the tier knows best what they take.
       .host_tier_bytes = model.plan.host_holds_all() ? UINT64_MAX : model.plan.host_tier_bytes},
      std::move(packs),
      std::move(model.backend),
      clock,
      logger);
}

}  // namespace

// What Run needs from step to step, kept so that a step allocates little.
struct TorchRunner::StepScratch {
  explicit StepScratch(const CpuContext& cpu) : sampler(cpu) {}
  Sampler sampler;
  std::vector<TokenRun> runs;
  std::vector<uint32_t> greedy;  // tokens whose most likely successor is all that is wanted
  std::vector<uint32_t> drawn;   // whose logits are
};

TorchRunner::TorchRunner(ModelDescription description, const Limits& limits, uint32_t num_threads)
    : description_(std::move(description)), limits_(limits), num_threads_(num_threads) {}

TorchRunner::~TorchRunner() = default;

absl::StatusOr<MemoryPlan> TorchRunner::Plan(const EngineOptions& options) {
  return Guarded([&]() -> absl::StatusOr<MemoryPlan> {
    PREGATE_ASSIGN_OR_RETURN(Prepared model, Prepare(options));
    return std::move(model.plan);
  });
}

absl::StatusOr<std::unique_ptr<TorchRunner>> TorchRunner::Load(const EngineOptions& options,
                                                               const Logger& logger) {
  return Guarded([&] { return LoadUnguarded(options, logger); });
}

absl::StatusOr<std::unique_ptr<TorchRunner>> TorchRunner::LoadUnguarded(
    const EngineOptions& options, const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(Prepared model, Prepare(options));
  PREGATE_ASSIGN_OR_RETURN(
      OpenedPacks packs,
      OpenPacks(options, model.config, *model.files, model.plan, model.dtype, logger));

  LimitLibTorch(model.isa);
  const CpuContext cpu = {.kernels = &CpuKernelsFor(model.isa),
                          .parallel_for = LibTorchParallelFor()};
  PREGATE_ASSIGN_OR_RETURN(
      ModelWeights weights,
      LoadWeights(std::move(model.files), model.config, model.dtype, cpu, logger));
  const uint32_t num_threads =
      ChooseThreads(options.threads, BytesPerToken(model.plan, model.config));
  UseThreads(num_threads);
  const uint64_t num_parameters = weights.num_parameters + ExpertParameters(model.config);
  logger.Info("model read",
              {{"family", model.config.family->model_type},
               {"parameters", num_parameters},
               {"dtype", DtypeName(model.dtype)},
               {"mapped", FormatBytes(weights.mapped_bytes)},
               {"copied", FormatBytes(weights.copied_bytes)},
               {"cpu_isa", CpuIsaName(model.isa)},
               {"threads", num_threads}});

  const Limits limits = {.vocab_size = model.config.vocab_size,
                         .max_context = model.max_context,
                         .kv_block_size = options.kv_block_size,
                         .num_kv_blocks = model.plan.num_kv_blocks};
  std::unique_ptr<TorchRunner> runner(new TorchRunner(
      Describe(options, model.config, num_parameters, model.dtype, model.max_context),
      limits,
      num_threads));
  Backend& backend = *model.backend;  // of the experts from now on
  const bool on_gpu = !backend.is_host();
  PREGATE_ASSIGN_OR_RETURN(
      runner->experts_,
      OpenExperts(options, model, std::move(packs.packs), runner->clock_, logger));
  LogPlan(model.plan, logger);

  runner->memory_ = {
      {"dense", model.plan.dense_bytes},
      {"expert",
       model.plan.slots.is_unified ? model.plan.host_tier_bytes : model.plan.slot_bytes()},
      {"kv", model.plan.kv_bytes},
      {"workspace", model.plan.workspace_bytes}};
  runner->config_ = std::make_unique<const ModelConfig>(std::move(model.config));
  if (on_gpu) {
    PREGATE_ASSIGN_OR_RETURN(runner->compute_,
                             CreateCudaCompute(*runner->config_,
                                               weights,
                                               {.layouts = packs.layouts,
                                                .max_tokens = options.max_batch_tokens,
                                                .max_context = model.max_context,
                                                .max_logits = options.max_running,
                                                .kv_block_size = options.kv_block_size,
                                                .num_kv_blocks = model.plan.num_kv_blocks},
                                               backend));
  } else {
    auto compute = std::make_unique<CpuCompute>(
        *runner->config_,
        std::move(weights),
        CpuCompute::Options{.dtype = model.dtype,
                            .cpu = cpu,
                            .row_counts = CheckRowCounts(*runner->config_, model.dtype, logger),
                            .layouts = packs.layouts,
                            .max_tokens = options.max_batch_tokens,
                            .max_context = model.max_context,
                            .kv_block_size = options.kv_block_size,
                            .num_kv_blocks = model.plan.num_kv_blocks});
    runner->cpu_compute_ = compute.get();
    runner->profiled_ =
        std::make_unique<TorchProfiledModel>(*compute, options, packs.layouts.front(), num_threads);
    runner->compute_ = std::move(compute);
  }
  runner->transformer_ = std::make_unique<Transformer>(
      *runner->config_,
      *runner->compute_,
      ExpertRecords{.offload = runner->experts_.get(), .layouts = std::move(packs.layouts)},
      Transformer::Options{.max_tokens = options.max_batch_tokens,
                           .max_context = model.max_context,
                           .kv_block_size = options.kv_block_size,
                           .num_kv_blocks = model.plan.num_kv_blocks});
  runner->scratch_ = std::make_unique<StepScratch>(cpu);
  return runner;
}

ProfiledModel* TorchRunner::profiled() { return profiled_.get(); }

uint32_t TorchRunner::max_batch_tokens() const { return transformer_->options().max_tokens; }

absl::StatusOr<absl::Span<const float>> TorchRunner::Forward(const ForwardBatch& batch,
                                                             Routing* routing) {
  return Guarded([&]() -> absl::StatusOr<absl::Span<const float>> {
    UseThreads(num_threads_);
    PREGATE_ASSIGN_OR_RETURN(const ModelCompute::Next next, transformer_->Forward(batch, routing));
    for (const RunResult& result : transformer_->run_results()) {
      PREGATE_RETURN_IF_ERROR(result.status);
    }
    return next.logits;
  });
}

absl::Status TorchRunner::ForceRouting(std::shared_ptr<const RoutingTrace> trace) {
  return transformer_->ForceRouting(std::move(trace));
}

Duration TorchRunner::expert_compute_time() const { return transformer_->expert_compute_time(); }

absl::StatusOr<double> TorchRunner::MeasureProducts(const Routing& routing,
                                                    uint32_t num_logits,
                                                    uint32_t repetitions) {
  return Guarded([&]() -> absl::StatusOr<double> {
    UseThreads(num_threads_);
    if (cpu_compute_ == nullptr) {
      return absl::FailedPreconditionError("the bound of products is known for the CPU alone");
    }
    if (bound_ == nullptr) bound_ = std::make_unique<ProductBound>(*cpu_compute_);
    return bound_->MeasureSeconds(routing, num_logits, repetitions);
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
  if (!token_id.ok()) return {.status = token_id.status()};
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
  std::vector<uint32_t>& greedy = scratch_->greedy;
  std::vector<uint32_t>& drawn = scratch_->drawn;
  runs.clear();
  greedy.clear();
  drawn.clear();
  uint32_t num_tokens = 0;
  for (const SequenceStep& step : plan.sequences) {
    runs.push_back({.token_ids = step.token_ids,
                    .first_position = step.first_position,
                    .blocks = step.blocks,
                    .sequence = step.sequence_id,
                    .is_prompt = step.is_prompt});
    num_tokens += static_cast<uint32_t>(step.token_ids.size());
    if (step.sampling != nullptr) (IsGreedy(step) ? greedy : drawn).push_back(num_tokens - 1);
  }
  const auto num_greedy = static_cast<uint32_t>(greedy.size());
  greedy.insert(greedy.end(), drawn.begin(), drawn.end());
  PREGATE_ASSIGN_OR_RETURN(const ModelCompute::Next next, Guarded([&] {
                             UseThreads(num_threads_);
                             return transformer_->Forward(
                                 {.runs = runs, .logit_tokens = greedy, .num_greedy = num_greedy},
                                 nullptr);
                           }));

  StepResult result;
  result.sequences.reserve(plan.sequences.size());
  auto next_greedy = next.greedy.begin();
  size_t row = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const SequenceStep& step = plan.sequences[i];
    const RunResult& run = transformer_->run_results()[i];
    SequenceResult sequence;
    sequence.status = run.status;
    if (step.sampling != nullptr && IsGreedy(step)) {
      const absl::StatusOr<uint32_t>& token_id = *next_greedy++;
      if (run.status.ok()) {
        sequence.status = token_id.status();
        if (token_id.ok()) sequence.token = GeneratedToken{.token_id = *token_id, .logprob = {}};
      }
    } else if (step.sampling != nullptr) {
      const auto own = next.logits.subspan(row++ * limits_.vocab_size, limits_.vocab_size);
      if (run.status.ok()) sequence = Sample(step, own);
    }
    sequence.expert_usage = run.usage;
    result.sequences.push_back(std::move(sequence));
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
  experts_->VisitStats(visitor);
}

}  // namespace pregate
