#include "core/model/memory_plan.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

constexpr uint64_t kKvShare = 4;               // the KV cache gets at most one part of as many
constexpr double kUsedShare = 0.9;             // of the memory; the rest is the system's
constexpr uint64_t kPage = 4096;               // slots begin on pages
constexpr Codec kSmallerCodec = Codec::kInt8;  // of "adaptive"
constexpr uint64_t kFewestRecords = 2;  // in the host tier: one is read while another is used

uint64_t CeilDivide(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

uint64_t LessBy(uint64_t bytes, uint64_t used) { return bytes - std::min(bytes, used); }

uint64_t UsableOf(uint64_t bytes) {
  return static_cast<uint64_t>(static_cast<double>(bytes) * kUsedShare);
}

absl::StatusOr<uint32_t> PlanKvBlocks(const MemoryDemand& demand, uint64_t memory_bytes) {
  const uint64_t blocks_per_sequence = CeilDivide(demand.max_context, demand.kv_block_size);
  const uint64_t wanted = blocks_per_sequence * demand.max_running;
  const uint64_t budget = memory_bytes / kKvShare;
  const uint64_t fitting = budget / std::max<uint64_t>(1, demand.kv_block_bytes);
  if (fitting < blocks_per_sequence) {
    return absl::FailedPreconditionError(
        absl::StrCat("the KV cache of one sequence of ",
                     demand.max_context,
                     " tokens needs ",
                     FormatBytes(blocks_per_sequence * demand.kv_block_bytes),
                     ", more than a quarter of the memory (",
                     FormatBytes(budget),
                     "); lower max_context"));
  }
  return static_cast<uint32_t>(std::min({wanted, fitting, uint64_t{UINT32_MAX}}));
}

absl::StatusOr<uint64_t> RecordBytes(Codec codec, const ExpertShape& shape) {
  PREGATE_ASSIGN_OR_RETURN(const RecordLayout layout, LayOutRecord(codec, shape));
  return layout.bytes;
}

// For --expert-codec; `fitting_bytes` is what experts may take.
absl::StatusOr<Codec> ChooseCodec(const MemoryDemand& demand,
                                  absl::string_view name,
                                  uint64_t fitting_bytes) {
  // "adaptive" begins with the exact encoding.
  if (name.empty() || name == "adaptive") return Codec::kNone;
  if (name != "auto") return ParseCodec(name);
  const uint64_t num_records = uint64_t{demand.num_layers} * demand.num_experts;
  for (const Codec codec : {Codec::kNone, Codec::kInt8}) {
    PREGATE_ASSIGN_OR_RETURN(const uint64_t bytes, RecordBytes(codec, demand.shape));
    if (num_records * bytes / 2 <= fitting_bytes) return codec;
  }
  return Codec::kInt4;
}

absl::Status PlanExperts(const MemoryDemand& demand,
                         const ExpertOptions& options,
                         MemoryPlan& plan) {
  const bool on_gpu = plan.machine.gpu_bytes.has_value();
  const uint64_t others =
      plan.dense_bytes + plan.workspace_bytes + plan.context_bytes + plan.kv_bytes;
  const uint64_t usable = UsableOf(plan.machine.host_bytes);
  const uint64_t left = on_gpu ? usable : LessBy(usable, others);
  const bool has_budget = options.gpu_memory_budget > 0;
  uint64_t device_bytes = LessBy(plan.device_bytes, others);
  // On the CPU slots are a device of their own within the host's memory: for whoever asks for them.
  if (!on_gpu && !has_budget) device_bytes = left / 2;
  const bool is_unified =
      options.unified_memory == "on" ||
      (!on_gpu && options.unified_memory == "auto" && options.capacity.empty() &&
       options.simulated_link.empty() && !has_budget);

  PREGATE_ASSIGN_OR_RETURN(plan.codec,
                           ChooseCodec(demand, options.codec, is_unified ? left : device_bytes));
  PREGATE_ASSIGN_OR_RETURN(plan.record_bytes, RecordBytes(plan.codec, demand.shape));
  if (options.codec == "adaptive") {
    plan.smaller_codec = kSmallerCodec;
    PREGATE_ASSIGN_OR_RETURN(plan.smaller_record_bytes, RecordBytes(kSmallerCodec, demand.shape));
  }
  plan.num_records = demand.num_layers * demand.num_experts;
  plan.slot_needs = {.num_layers = demand.num_layers,
                     .num_experts = demand.num_experts,
                     .experts_per_token = demand.experts_per_token,
                     .max_running = demand.max_running,
                     .slot_bytes = CeilDivide(plan.record_bytes, kPage) * kPage,
                     .budget_bytes = device_bytes,
                     .shares_memory = is_unified};
  PREGATE_ASSIGN_OR_RETURN(plan.slots,
                           PlanSlots(options.memory_strategy, options.capacity, plan.slot_needs));

  uint64_t host_budget = options.host_memory_budget;
  if (host_budget == 0) host_budget = on_gpu ? left : LessBy(left, plan.slot_bytes());
  plan.host_tier_bytes = std::min(plan.all_records_bytes(), host_budget);
  const uint64_t fewest = kFewestRecords * (plan.record_bytes + plan.smaller_record_bytes);
  if (plan.host_tier_bytes < fewest) {
    return absl::ResourceExhaustedError(
        absl::StrCat("host_memory_budget: ",
                     FormatBytes(host_budget),
                     " for experts in host memory do not hold two of ",
                     FormatBytes(fewest / kFewestRecords),
                     "; give more, or use a smaller --expert-codec"));
  }
  return absl::OkStatus();
}

}  // namespace

MemoryDemand DemandOf(const ModelConfig& config,
                      Dtype dtype,
                      uint32_t max_context,
                      const EngineOptions& options) {
  const uint64_t size = dtype == Dtype::kBfloat16 ? 2 : 4;
  constexpr uint64_t kFloat = sizeof(float);
  const uint64_t hidden = config.hidden_size;
  const uint64_t query = uint64_t{config.num_heads} * config.head_dim;
  const uint64_t kv = uint64_t{config.num_kv_heads} * config.head_dim;
  const uint64_t experts = config.num_experts;

  // What LoadWeights reads: matrices of the model's dtype, vectors and gates of float32.
  uint64_t matrices = config.vocab_size * hidden * (config.tie_word_embeddings ? 1 : 2);
  uint64_t floats = hidden;
  for (uint32_t layer = 0; layer < config.num_layers; ++layer) {
    matrices += 2 * query * hidden + 2 * kv * hidden;
    floats += 2 * hidden + (config.family->has_qk_norm() ? 2 * config.head_dim : 0);
    floats +=
        experts * hidden * ((config.HasGate(layer) ? 1 : 0) + (config.HasPregate(layer) ? 1 : 0));
  }

  // What the layers allocate, for max_batch_tokens tokens.
  const uint64_t tokens = options.max_batch_tokens;
  const uint64_t rows = tokens * config.num_experts_per_token;
  const uint64_t attention = uint64_t{max_context} * config.head_dim + 2 * tokens * (query + kv);
  const uint64_t moe = experts + 1 + 2 * rows + tokens * experts + 2 * rows * hidden +
                       tokens * config.expert_width * (config.family->is_gated() ? 2 : 1);
  const uint64_t gates_ahead = tokens * (hidden + 3 * experts);
  const uint64_t residuals = 3 * tokens * hidden + config.vocab_size;

  return {.dense_bytes = matrices * size + floats * kFloat,
          .workspace_bytes = (attention + moe + gates_ahead + residuals) * kFloat,
          .max_running = options.max_running,
          .max_context = max_context,
          .kv_block_size = options.kv_block_size,
          .kv_block_bytes = 2 * kv * config.num_layers * options.kv_block_size * size,
          .num_layers = config.num_layers,
          .num_experts = config.num_experts,
          .experts_per_token = config.num_experts_per_token,
          .shape = {.hidden_size = config.hidden_size,
                    .expert_width = config.expert_width,
                    .is_gated = config.family->is_gated(),
                    .dtype = dtype}};
}

absl::StatusOr<MemoryPlan> PlanMemory(const MemoryDemand& demand,
                                      const ExpertOptions& options,
                                      const MachineMemory& machine) {
  MemoryPlan plan;
  plan.machine = machine;
  const uint64_t there_is = machine.gpu_bytes.value_or(machine.host_bytes);
  if (options.gpu_memory_budget > 0) {
    plan.device_bytes = options.gpu_memory_budget;
    if (machine.gpu_bytes.has_value() && plan.device_bytes > there_is + demand.context_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("gpu_memory_budget: ",
                       FormatBytes(plan.device_bytes),
                       " were asked for and ",
                       FormatBytes(there_is),
                       " are free on the GPU; give less, or end what else runs there"));
    }
  } else {
    // The driver has taken its part already.
    plan.device_bytes = UsableOf(there_is + demand.context_bytes);
  }
  plan.dense_bytes = demand.dense_bytes;
  plan.workspace_bytes = demand.workspace_bytes;
  plan.context_bytes = demand.context_bytes;
  PREGATE_ASSIGN_OR_RETURN(
      plan.num_kv_blocks,
      PlanKvBlocks(demand, machine.gpu_bytes.has_value() ? plan.device_bytes : there_is));
  plan.kv_bytes = plan.num_kv_blocks * demand.kv_block_bytes;
  const uint64_t others =
      plan.dense_bytes + plan.workspace_bytes + plan.context_bytes + plan.kv_bytes;
  if (machine.gpu_bytes.has_value() && others > plan.device_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the dense weights (",
        FormatBytes(plan.dense_bytes),
        "), the KV cache (",
        FormatBytes(plan.kv_bytes),
        "), the workspace (",
        FormatBytes(plan.workspace_bytes),
        ") and the driver (",
        FormatBytes(plan.context_bytes),
        ") do not fit into ",
        FormatBytes(plan.device_bytes),
        " of GPU memory; lower --max-context, --max-running or --max-batch-tokens, or raise "
        "--gpu-memory-budget"));
  }
  PREGATE_RETURN_IF_ERROR(PlanExperts(demand, options, plan));
  return plan;
}

std::string FormatMemoryPlan(const MemoryPlan& plan) {
  std::string text = absl::StrFormat("%-14s %10s  %s\n", "memory", "size", "for");
  const auto row = [&text](absl::string_view pool, uint64_t bytes, absl::string_view use) {
    absl::StrAppend(&text, absl::StrFormat("%-14s %10s  %s\n", pool, FormatBytes(bytes), use));
  };
  row("dense", plan.dense_bytes, "all weights but the experts'");
  row("kv", plan.kv_bytes, absl::StrCat(plan.num_kv_blocks, " blocks of keys and values"));
  row("workspace", plan.workspace_bytes, "what a step computes with");
  if (plan.context_bytes > 0) row("driver", plan.context_bytes, "what the GPU's driver takes");
  const std::string records = absl::StrCat(plan.num_records,
                                           " experts of ",
                                           FormatBytes(plan.record_bytes),
                                           ", codec ",
                                           CodecName(plan.codec));
  if (plan.slots.is_unified) {
    row("expert slots", 0, "none: experts are used where they lie in host memory");
  } else {
    row("expert slots",
        plan.slot_bytes(),
        absl::StrFormat("%d slots, %.0f %% of %s",
                        plan.slots.num_slots,
                        100.0 * plan.slots.num_slots / plan.num_records,
                        records));
  }
  row("host experts",
      plan.host_tier_bytes,
      absl::StrCat(plan.host_holds_all() ? "all " : "a cache over disk of ",
                   records,
                   plan.smaller_codec.has_value()
                       ? absl::StrCat(" and once more as ", CodecName(*plan.smaller_codec))
                       : ""));
  const uint64_t device = plan.dense_bytes + plan.kv_bytes + plan.workspace_bytes +
                          plan.context_bytes + plan.slot_bytes();
  const auto free = [&](absl::string_view name, uint64_t used, uint64_t bytes) {
    row(name, LessBy(bytes, used), absl::StrCat("of ", FormatBytes(bytes)));
  };
  if (plan.machine.gpu_bytes.has_value()) {
    free("GPU free", device, *plan.machine.gpu_bytes + plan.context_bytes);
    free("host free", plan.host_tier_bytes, plan.machine.host_bytes);
  } else {
    free("free", device + plan.host_tier_bytes, plan.machine.host_bytes);
  }
  absl::StrAppend(&text, "memory strategy: ", plan.slots.strategy, "\n");
  return text;
}

}  // namespace pregate
