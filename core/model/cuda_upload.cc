#include "core/model/cuda_upload.h"

#include <vector>

#include "core/base/status_macros.h"
#include "core/kernel/norm_rope.h"

namespace pregate {
namespace {

// Copies a tensor's numbers, whatever its strides.
absl::Status UploadTensor(const at::Tensor& tensor, void* to, Stream& stream) {
  const at::Tensor rows = tensor.contiguous();
  stream.CopyAsync(static_cast<std::byte*>(to),
                   static_cast<const std::byte*>(rows.const_data_ptr()),
                   rows.nbytes());
  return stream.Synchronize();  // `rows` may be a copy
}

}  // namespace

absl::Status UploadWeights(const ModelConfig& config,
                           const ModelWeights& weights,
                           const Sizes& sizes,
                           const DenseWeights& out,
                           Stream& stream) {
  const auto upload = [&stream](const at::Tensor& tensor, void* to) {
    return UploadTensor(tensor, to, stream);
  };
  const size_t hidden = config.hidden_size;
  const size_t kv = size_t{config.num_kv_heads} * config.head_dim;
  for (uint32_t i = 0; i < config.num_layers; ++i) {
    const LayerWeights& from = weights.layers[i];
    const DenseLayer& to = out.layers[i];
    PREGATE_RETURN_IF_ERROR(upload(from.input_norm, to.input_norm));
    PREGATE_RETURN_IF_ERROR(upload(from.query.t(), to.qkv));
    PREGATE_RETURN_IF_ERROR(upload(from.key.t(), to.qkv + sizes.query * hidden));
    PREGATE_RETURN_IF_ERROR(upload(from.value.t(), to.qkv + (sizes.query + kv) * hidden));
    if (from.query_norm.defined()) {
      PREGATE_RETURN_IF_ERROR(upload(from.query_norm, to.query_norm));
      PREGATE_RETURN_IF_ERROR(upload(from.key_norm, to.key_norm));
    }
    PREGATE_RETURN_IF_ERROR(upload(from.output.t(), to.output));
    PREGATE_RETURN_IF_ERROR(upload(from.post_attention_norm, to.post_attention_norm));
    if (from.gate.defined()) PREGATE_RETURN_IF_ERROR(upload(from.gate, to.gate));
    if (from.pregate.defined()) PREGATE_RETURN_IF_ERROR(upload(from.pregate, to.pregate));
  }
  PREGATE_RETURN_IF_ERROR(upload(weights.embedding, out.embedding));
  PREGATE_RETURN_IF_ERROR(upload(weights.final_norm, out.final_norm));
  if (out.head == out.embedding) return absl::OkStatus();
  const at::Tensor head = weights.head.t();
  PREGATE_RETURN_IF_ERROR(upload(head, out.head));
  if (sizes.vocab == config.vocab_size) return absl::OkStatus();
  // Nobody reads the logits of the rows added, but zeros are the same in every run.
  return upload(at::zeros({sizes.vocab - config.vocab_size, head.size(1)}, head.options()),
                out.head + config.vocab_size * hidden);
}

absl::Status UploadRopeTables(const ModelConfig& config,
                              const Sizes& sizes,
                              const Workspace& work,
                              Stream& stream) {
  const size_t count = size_t{sizes.max_context} * (config.head_dim / 2);
  std::vector<float> cosines(count);
  std::vector<float> sines(count);
  FillRopeTable(
      sizes.max_context, config.head_dim, config.rope_theta, cosines.data(), sines.data());
  const auto copy = [&](const std::vector<float>& from, float* to) {
    stream.CopyAsync(reinterpret_cast<std::byte*>(to),
                     reinterpret_cast<const std::byte*>(from.data()),
                     count * sizeof(float));
  };
  copy(cosines, work.cosines);
  copy(sines, work.sines);
  return stream.Synchronize();
}

}  // namespace pregate
