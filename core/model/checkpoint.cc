#include "core/model/checkpoint.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/substitute.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/kernel/rows.h"

namespace pregate {
namespace {

constexpr uint64_t kProgressBytes = uint64_t{1} << 30;  // between two lines of progress

bool ToScalarType(TensorDtype dtype, at::ScalarType& type) {
  switch (dtype) {
    case TensorDtype::kF32:
      type = at::kFloat;
      return true;
    case TensorDtype::kBf16:
      type = at::kBFloat16;
      return true;
    case TensorDtype::kF16:
      type = at::kHalf;
      return true;
    default:
      return false;
  }
}

class WeightsReader {
 public:
  WeightsReader(std::unique_ptr<const Safetensors> files,
                const ModelConfig& config,
                Dtype dtype,
                const CpuContext& cpu,
                const Logger& logger)
      : config_(config), dtype_(dtype), cpu_(cpu), logger_(logger) {
    weights_.files = std::move(files);
  }

  absl::StatusOr<ModelWeights> Read();

 private:
  absl::Status ReadLayer(uint32_t layer);
  absl::Status ReadAttention(uint32_t layer, LayerWeights& out);

  absl::StatusOr<at::Tensor> ReadTensor(const std::string& name,
                                        const std::vector<int64_t>& shape,
                                        Dtype dtype);
  // [out, in] as [in, out].
  absl::StatusOr<Matrix> ReadMatrix(const std::string& name, int64_t out, int64_t in);
  absl::StatusOr<at::Tensor> ReadFloats(const std::string& name, const std::vector<int64_t>& shape);
  at::Tensor Convert(const TensorView& view, at::ScalarType stored, Dtype dtype);
  void LogUnused() const;

  const ModelConfig& config_;
  const Dtype dtype_;
  const CpuContext& cpu_;
  const Logger& logger_;
  ModelWeights weights_;
  std::set<std::string, std::less<>> used_;
  uint64_t logged_bytes_ = 0;
};

absl::StatusOr<at::Tensor> WeightsReader::ReadTensor(const std::string& name,
                                                     const std::vector<int64_t>& shape,
                                                     Dtype dtype) {
  const TensorView* view = weights_.files->Find(name);
  if (view == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ",
                     name,
                     " is missing from the checkpoint; expected shape [",
                     absl::StrJoin(shape, ", "),
                     "]"));
  }
  if (view->shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ",
                                                   name,
                                                   " of ",
                                                   view->file,
                                                   " has shape [",
                                                   absl::StrJoin(view->shape, ", "),
                                                   "]; expected [",
                                                   absl::StrJoin(shape, ", "),
                                                   "] by config.json"));
  }
  at::ScalarType stored;
  if (!ToScalarType(view->dtype, stored)) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ",
                                                   name,
                                                   " of ",
                                                   view->file,
                                                   " is ",
                                                   TensorDtypeName(view->dtype),
                                                   "; allowed: F32, BF16, F16"));
  }
  used_.insert(name);

  const bool is_aligned =
      reinterpret_cast<uintptr_t>(view->bytes.data()) % TensorDtypeSize(view->dtype) == 0;
  at::Tensor tensor;
  if (stored == ScalarTypeOf(dtype) && is_aligned) {
    // The mapping is read-only and so are the weights; the const_cast is for at::from_blob.
    tensor = at::from_blob(
        const_cast<std::byte*>(view->bytes.data()), view->shape, at::TensorOptions().dtype(stored));
    weights_.mapped_bytes += view->bytes.size();
  } else {
    tensor = Convert(*view, stored, dtype);
  }
  weights_.num_parameters += static_cast<uint64_t>(tensor.numel());
  if (!AllFinite(cpu_, tensor.const_data_ptr(), dtype, tensor.numel())) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ",
                     name,
                     " of ",
                     view->file,
                     " holds a number that is not finite (NaN or infinity)"));
  }
  return tensor;
}

at::Tensor WeightsReader::Convert(const TensorView& view, at::ScalarType stored, Dtype dtype) {
  at::Tensor copy = EmptyTensor(view.shape, stored);
  std::copy(view.bytes.begin(), view.bytes.end(), static_cast<std::byte*>(copy.mutable_data_ptr()));
  at::Tensor converted = copy.to(ScalarTypeOf(dtype));
  weights_.copied_bytes += converted.nbytes();
  if (weights_.copied_bytes >= logged_bytes_ + kProgressBytes) {
    logged_bytes_ = weights_.copied_bytes;
    logger_.Info("converting weights", {{"done", FormatBytes(weights_.copied_bytes)}});
  }
  return converted;
}

absl::StatusOr<Matrix> WeightsReader::ReadMatrix(const std::string& name, int64_t out, int64_t in) {
  PREGATE_ASSIGN_OR_RETURN(const at::Tensor tensor, ReadTensor(name, {out, in}, dtype_));
  return tensor.t();
}

absl::StatusOr<at::Tensor> WeightsReader::ReadFloats(const std::string& name,
                                                     const std::vector<int64_t>& shape) {
  return ReadTensor(name, shape, Dtype::kFloat32);
}

absl::Status WeightsReader::ReadAttention(uint32_t layer, LayerWeights& out) {
  const TensorNames& names = config_.family->names;
  const int64_t hidden = config_.hidden_size;
  const int64_t query_size = int64_t{config_.num_heads} * config_.head_dim;
  const int64_t kv_size = int64_t{config_.num_kv_heads} * config_.head_dim;
  const auto name = [layer](absl::string_view pattern) { return absl::Substitute(pattern, layer); };
  PREGATE_ASSIGN_OR_RETURN(out.query, ReadMatrix(name(names.query), query_size, hidden));
  PREGATE_ASSIGN_OR_RETURN(out.key, ReadMatrix(name(names.key), kv_size, hidden));
  PREGATE_ASSIGN_OR_RETURN(out.value, ReadMatrix(name(names.value), kv_size, hidden));
  PREGATE_ASSIGN_OR_RETURN(out.output, ReadMatrix(name(names.output), hidden, query_size));
  if (!config_.family->has_qk_norm()) return absl::OkStatus();
  PREGATE_ASSIGN_OR_RETURN(out.query_norm, ReadFloats(name(names.query_norm), {config_.head_dim}));
  PREGATE_ASSIGN_OR_RETURN(out.key_norm, ReadFloats(name(names.key_norm), {config_.head_dim}));
  return absl::OkStatus();
}

absl::Status WeightsReader::ReadLayer(uint32_t layer) {
  const TensorNames& names = config_.family->names;
  const int64_t hidden = config_.hidden_size;
  const auto name = [layer](absl::string_view pattern) { return absl::Substitute(pattern, layer); };
  LayerWeights& out = weights_.layers.emplace_back();
  PREGATE_ASSIGN_OR_RETURN(out.input_norm, ReadFloats(name(names.input_norm), {hidden}));
  PREGATE_RETURN_IF_ERROR(ReadAttention(layer, out));
  PREGATE_ASSIGN_OR_RETURN(out.post_attention_norm,
                           ReadFloats(name(names.post_attention_norm), {hidden}));
  if (config_.HasGate(layer)) {
    PREGATE_ASSIGN_OR_RETURN(out.gate, ReadFloats(name(names.gate), {config_.num_experts, hidden}));
  }
  if (config_.HasPregate(layer)) {
    PREGATE_ASSIGN_OR_RETURN(out.pregate,
                             ReadFloats(name(names.pregate), {config_.num_experts, hidden}));
  }
  for (uint32_t expert = 0; expert < config_.num_experts; ++expert) {
    for (const absl::string_view pattern :
         {names.expert_up, names.expert_gate, names.expert_down}) {
      used_.insert(absl::Substitute(pattern, layer, expert));
    }
  }
  return absl::OkStatus();
}

void WeightsReader::LogUnused() const {
  uint64_t count = 0;
  absl::string_view first;
  for (const auto& [name, view] : weights_.files->tensors()) {
    if (used_.contains(name)) continue;
    if (count++ == 0) first = name;
  }
  if (count == 0) return;
  logger_.Warning("the checkpoint has tensors that the model does not use",
                  {{"count", count}, {"first", first}});
}

absl::StatusOr<ModelWeights> WeightsReader::Read() {
  const TensorNames& names = config_.family->names;
  const int64_t vocab = config_.vocab_size;
  const int64_t hidden = config_.hidden_size;
  PREGATE_ASSIGN_OR_RETURN(weights_.embedding,
                           ReadTensor(std::string(names.embedding), {vocab, hidden}, dtype_));
  for (uint32_t layer = 0; layer < config_.num_layers; ++layer) {
    PREGATE_RETURN_IF_ERROR(ReadLayer(layer));
  }
  PREGATE_ASSIGN_OR_RETURN(weights_.final_norm,
                           ReadFloats(std::string(names.final_norm), {hidden}));
  if (config_.tie_word_embeddings) {
    weights_.head = weights_.embedding.t();
  } else {
    PREGATE_ASSIGN_OR_RETURN(weights_.head, ReadMatrix(std::string(names.head), vocab, hidden));
  }
  LogUnused();
  return std::move(weights_);
}

}  // namespace

absl::StatusOr<ModelWeights> LoadWeights(std::unique_ptr<const Safetensors> files,
                                         const ModelConfig& config,
                                         Dtype dtype,
                                         const CpuContext& cpu,
                                         const Logger& logger) {
  return WeightsReader(std::move(files), config, dtype, cpu, logger).Read();
}

}  // namespace pregate
