#include "core/model/transformer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {

Transformer::Transformer(const ModelConfig& config,
                         ModelCompute& compute,
                         ExpertRecords records,
                         const Options& options)
    : config_(config),
      options_(options),
      compute_(compute),
      offload_(*records.offload),
      moe_(config_, compute_, std::move(records), options_.max_tokens) {
  token_ids_.reserve(options_.max_tokens);
  positions_.reserve(options_.max_tokens);
  places_.reserve(options_.max_tokens);
  sequences_.reserve(options_.max_tokens);
  seen_in_run_.resize(config_.num_experts);
}

absl::Status Transformer::Unpack(const ForwardBatch& batch) {
  token_ids_.clear();
  positions_.clear();
  places_.clear();
  sequences_.clear();
  is_prefill_ = false;
  run_results_.assign(batch.runs.size(), RunResult());
  is_reduced_.clear();
  for (const TokenRun& run : batch.runs) {
    const uint64_t end = uint64_t{run.first_position} + run.token_ids.size();
    if (end > options_.max_context) {
      return absl::InvalidArgumentError(absl::StrCat(
          "position ", end - 1, " is beyond the context of ", options_.max_context, " tokens"));
    }
    if (end > run.blocks.size() * uint64_t{options_.kv_block_size}) {
      return absl::InvalidArgumentError(absl::StrCat("position ",
                                                     end - 1,
                                                     " is beyond the ",
                                                     run.blocks.size(),
                                                     " KV blocks of its sequence"));
    }
    for (const uint32_t block : run.blocks) {
      if (block < options_.num_kv_blocks) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "KV block ", block, " is not one of the ", options_.num_kv_blocks, " there are"));
    }
    for (size_t i = 0; i < run.token_ids.size(); ++i) {
      if (run.token_ids[i] >= config_.vocab_size) {
        return absl::InvalidArgumentError(absl::StrCat("token id ",
                                                       run.token_ids[i],
                                                       " is not below the vocabulary's size, ",
                                                       config_.vocab_size));
      }
      const auto position = static_cast<uint32_t>(run.first_position + i);
      token_ids_.push_back(run.token_ids[i]);
      positions_.push_back(position);
      places_.push_back({.blocks = run.blocks.data(), .position = position});
      sequences_.push_back(run.sequence);
    }
    is_prefill_ = is_prefill_ || run.is_prompt;
    is_reduced_.resize(token_ids_.size());
    if (token_ids_.size() > options_.max_tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("more than ", options_.max_tokens, " tokens in one pass"));
    }
  }
  if (batch.logit_tokens.size() > token_ids_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("logits of ",
                                                   batch.logit_tokens.size(),
                                                   " tokens were asked for, of ",
                                                   token_ids_.size(),
                                                   " in the pass"));
  }
  if (batch.num_greedy > batch.logit_tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        batch.num_greedy, " of ", batch.logit_tokens.size(), " tokens were to be greedy"));
  }
  for (const uint32_t token : batch.logit_tokens) {
    if (token < token_ids_.size()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "logits of token ", token, " were asked for, of ", token_ids_.size(), " in the pass"));
  }
  return absl::OkStatus();
}

void Transformer::CountLookups(const ForwardBatch& batch, absl::Span<const uint32_t> ids) {
  const size_t per_token = config_.num_experts_per_token;
  for (size_t i = 0; i < is_reduced_.size() * per_token; ++i) {
    if (moe_.encodings()[ids[i]] > 0) is_reduced_[i / per_token] = true;
  }
  std::fill(seen_in_run_.begin(), seen_in_run_.end(), 0);
  for (uint32_t run = 0; run < batch.runs.size(); ++run) {
    ExpertUsage& usage = run_results_[run].usage;
    usage.stall_seconds += ToSeconds(moe_.stall());
    const size_t count = batch.runs[run].token_ids.size() * per_token;
    for (const uint32_t expert : ids.first(count)) {
      // A run looks an expert up once, however many of its tokens go there.
      if (std::exchange(seen_in_run_[expert], run + 1) == run + 1) continue;
      switch (moe_.lookups()[expert]) {
        case Lookup::kHit:
          ++usage.hits;
          break;
        case Lookup::kLateHit:
          ++usage.late_hits;
          break;
        case Lookup::kMiss:
          ++usage.misses;
          usage.loaded_bytes += moe_.RecordBytes(moe_.encodings()[expert]);
          break;
      }
      for (const MoeLayer::Failure& failure : moe_.failures()) {
        if (failure.expert == expert) run_results_[run].status.Update(failure.status);
      }
    }
    ids.remove_prefix(count);
  }
}

uint64_t Transformer::CountReduced(const ForwardBatch& batch) {
  uint64_t reduced = 0;
  auto token = is_reduced_.begin();
  for (size_t run = 0; run < batch.runs.size(); ++run) {
    const auto end = token + static_cast<ptrdiff_t>(batch.runs[run].token_ids.size());
    const auto of_run = static_cast<uint64_t>(std::count(token, end, true));
    run_results_[run].usage.reduced_precision_tokens = of_run;
    reduced += of_run;
    token = end;
  }
  return reduced;
}

void Transformer::RecordRouting(const ForwardBatch& batch, const Routing& routing) {
  uint32_t token = 0;
  for (const TokenRun& run : batch.runs) {
    for (size_t i = 0; i < run.token_ids.size(); ++i, ++token) {
      token_routing_.clear();
      for (uint32_t layer = 0; layer < routing.num_layers; ++layer) {
        const absl::Span<const uint32_t> experts = routing.ExpertsOf(layer, token);
        token_routing_.insert(token_routing_.end(), experts.begin(), experts.end());
      }
      offload_.RecordRouting(run.sequence, run.is_prompt, token_routing_);
    }
  }
}

absl::Status Transformer::ForceRouting(std::shared_ptr<const RoutingTrace> trace) {
  if (trace != nullptr) {
    if (trace->num_layers != config_.num_layers || trace->num_experts != config_.num_experts ||
        trace->experts_per_token != config_.num_experts_per_token) {
      return absl::InvalidArgumentError(absl::StrCat("the routing trace is of ",
                                                     trace->num_layers,
                                                     " layers of ",
                                                     trace->num_experts,
                                                     " experts, top-",
                                                     trace->experts_per_token,
                                                     "; the model has ",
                                                     config_.num_layers,
                                                     " of ",
                                                     config_.num_experts,
                                                     ", top-",
                                                     config_.num_experts_per_token));
    }
    for (const RoutingTrace::Sequence& sequence : trace->sequences) {
      if (trace->num_tokens(sequence) > 0) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("sequence ", sequence.id, " of the routing trace has no tokens"));
    }
    if (trace->sequences.empty()) {
      return absl::InvalidArgumentError("the routing trace has no sequences");
    }
  }
  forced_ = std::move(trace);
  return absl::OkStatus();
}

void Transformer::ForceExperts(uint32_t layer, absl::Span<uint32_t> expert_ids) const {
  auto ids = expert_ids.begin();
  for (size_t i = 0; i < sequences_.size(); ++i) {
    ids = std::copy_n(forced_->ForcedExperts(sequences_[i], positions_[i], layer).begin(),
                      config_.num_experts_per_token,
                      ids);
  }
}

absl::Status Transformer::RunLayer(uint32_t layer, const ForwardBatch& batch, Routing* routing) {
  PREGATE_ASSIGN_OR_RETURN(const ChosenExperts chosen, compute_.Attend(layer));
  if (forced_ != nullptr) {
    ForceExperts(layer, chosen.own);
    if (!chosen.next.empty()) ForceExperts(layer + 1, chosen.next);
  }
  routing->expert_ids.insert(routing->expert_ids.end(), chosen.own.begin(), chosen.own.end());
  PREGATE_RETURN_IF_ERROR(moe_.Run({.layer = layer,
                                    .num_tokens = static_cast<uint32_t>(token_ids_.size()),
                                    .experts_per_token = config_.num_experts_per_token,
                                    .expert_ids = chosen.own,
                                    .sequences = sequences_,
                                    .positions = positions_,
                                    .is_prefill = is_prefill_,
                                    .next_expert_ids = chosen.next,
                                    .gates = &compute_.gates_ahead()}));
  CountLookups(batch, chosen.own);
  return absl::OkStatus();
}

absl::StatusOr<ModelCompute::Next> Transformer::Forward(const ForwardBatch& batch,
                                                        Routing* routing) {
  PREGATE_RETURN_IF_ERROR(Unpack(batch));
  if (routing == nullptr) routing = &recorded_;
  routing->num_layers = config_.num_layers;
  routing->num_tokens = static_cast<uint32_t>(token_ids_.size());
  routing->experts_per_token = config_.num_experts_per_token;
  routing->expert_ids.clear();
  PREGATE_RETURN_IF_ERROR(
      compute_.Begin({.ids = token_ids_, .positions = positions_, .places = places_}));
  offload_.BeginStep();
  for (uint32_t layer = 0; layer < config_.num_layers; ++layer) {
    PREGATE_RETURN_IF_ERROR(RunLayer(layer, batch, routing));
  }
  offload_.EndStep(CountReduced(batch));
  RecordRouting(batch, *routing);
  return compute_.Logits(batch.logit_tokens, batch.num_greedy);
}

}  // namespace pregate
