#include "core/model/pack_experts.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/substitute.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

// FNV-1a, 64 bits (Fowler, Noll, Vo): tells checkpoints apart, and is no protection.
uint64_t Hash(absl::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

// IEEE 754 binary16.
float FromFloat16(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const int fraction = half & 1023;
  const float sign = half >> 15 != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
}

template <typename T>
T ReadNumber(absl::Span<const std::byte> bytes, size_t index) {
  T number;
  std::memcpy(&number, &bytes[index * sizeof(T)], sizeof(T));
  return number;
}

// A matrix as floats, checked.
absl::Status ReadMatrix(const Safetensors& files,
                        const std::string& name,
                        const EncodedMatrix& matrix,
                        std::vector<float>& weights) {
  const std::vector<int64_t> shape = {matrix.out, matrix.in};
  const TensorView* const view = files.Find(name);
  if (view == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ",
                     name,
                     " is missing from the checkpoint; expected shape [",
                     absl::StrJoin(shape, ", "),
                     "]"));
  }
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " of ", view->file, " ", why));
  };
  if (view->shape != shape) {
    return refuse(absl::StrCat("has shape [",
                               absl::StrJoin(view->shape, ", "),
                               "]; expected [",
                               absl::StrJoin(shape, ", "),
                               "] by config.json"));
  }
  weights.resize(size_t{matrix.out} * matrix.in);
  switch (view->dtype) {
    case TensorDtype::kF32:
      std::memcpy(weights.data(), view->bytes.data(), view->bytes.size());
      break;
    case TensorDtype::kBf16:
      for (size_t i = 0; i < weights.size(); ++i) {
        const uint32_t bits = uint32_t{ReadNumber<uint16_t>(view->bytes, i)} << 16;
        std::memcpy(&weights[i], &bits, sizeof(bits));
      }
      break;
    case TensorDtype::kF16:
      for (size_t i = 0; i < weights.size(); ++i) {
        weights[i] = FromFloat16(ReadNumber<uint16_t>(view->bytes, i));
      }
      break;
    default:
      return refuse(absl::StrCat("is ", TensorDtypeName(view->dtype), "; allowed: F32, BF16, F16"));
  }
  if (std::all_of(weights.begin(), weights.end(), [](float w) { return std::isfinite(w); })) {
    return absl::OkStatus();
  }
  return refuse("holds a number that is not finite (NaN or infinity)");
}

absl::StatusOr<std::string> Property(const ExpertPackHeader& header, const std::string& key) {
  const auto found = header.properties.find(key);
  if (found != header.properties.end()) return found->second;
  return absl::InvalidArgumentError(absl::StrCat("the pack does not say its ", key));
}

absl::Status ExpectProperty(const ExpertPackHeader& header,
                            const std::string& key,
                            const std::string& expected) {
  PREGATE_ASSIGN_OR_RETURN(const std::string value, Property(header, key));
  if (value == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the pack's ", key, " is ", value, "; the model's is ", expected));
}

std::string GateName(const ModelConfig& config) {
  return config.family->is_gated() ? "gated" : "plain";
}

}  // namespace

Dtype CheckpointDtype(const ModelConfig& config, const Safetensors& files) {
  if (config.dtype.has_value()) return *config.dtype;
  const TensorView* const embedding = files.Find(config.family->names.embedding);
  const bool is_float32 = embedding != nullptr && embedding->dtype == TensorDtype::kF32;
  return is_float32 ? Dtype::kFloat32 : Dtype::kBfloat16;
}

ExpertShape ExpertShapeOf(const ModelConfig& config, Dtype dtype) {
  return {.hidden_size = config.hidden_size,
          .expert_width = config.expert_width,
          .is_gated = config.family->is_gated(),
          .dtype = dtype};
}

absl::StatusOr<ExpertPackHeader> PackHeaderOf(const ModelConfig& config,
                                              Codec codec,
                                              Dtype dtype,
                                              const std::string& source) {
  PREGATE_ASSIGN_OR_RETURN(const RecordLayout layout,
                           LayOutRecord(codec, ExpertShapeOf(config, dtype)));
  return ExpertPackHeader{.num_layers = config.num_layers,
                          .num_experts = config.num_experts,
                          .record_bytes = layout.bytes,
                          .properties = {{"codec", std::string(CodecName(codec))},
                                         {"dtype", std::string(DtypeName(dtype))},
                                         {"model_type", std::string(config.family->model_type)},
                                         {"hidden_size", absl::StrCat(config.hidden_size)},
                                         {"expert_width", absl::StrCat(config.expert_width)},
                                         {"experts", GateName(config)},
                                         {"source", source}}};
}

absl::StatusOr<RecordLayout> LayoutOfPack(const ExpertPackHeader& header,
                                          const ModelConfig& config) {
  PREGATE_RETURN_IF_ERROR(
      ExpectProperty(header, "model_type", std::string(config.family->model_type)));
  PREGATE_RETURN_IF_ERROR(ExpectProperty(header, "hidden_size", absl::StrCat(config.hidden_size)));
  PREGATE_RETURN_IF_ERROR(
      ExpectProperty(header, "expert_width", absl::StrCat(config.expert_width)));
  PREGATE_RETURN_IF_ERROR(ExpectProperty(header, "experts", GateName(config)));
  if (header.num_layers != config.num_layers || header.num_experts != config.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat("the pack has ",
                                                   header.num_layers,
                                                   " layers of ",
                                                   header.num_experts,
                                                   " experts; the model has ",
                                                   config.num_layers,
                                                   " of ",
                                                   config.num_experts));
  }
  PREGATE_ASSIGN_OR_RETURN(const std::string codec_name, Property(header, "codec"));
  PREGATE_ASSIGN_OR_RETURN(const Codec codec, ParseCodec(codec_name));
  PREGATE_ASSIGN_OR_RETURN(const std::string dtype_name, Property(header, "dtype"));
  const Dtype dtype =
      dtype_name == DtypeName(Dtype::kBfloat16) ? Dtype::kBfloat16 : Dtype::kFloat32;
  if (dtype_name != DtypeName(dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the pack's dtype is ", dtype_name, ", not float32 or bfloat16"));
  }
  PREGATE_ASSIGN_OR_RETURN(const RecordLayout layout,
                           LayOutRecord(codec, ExpertShapeOf(config, dtype)));
  if (layout.bytes == header.record_bytes) return layout;
  return absl::InvalidArgumentError(absl::StrCat("the pack's records have ",
                                                 header.record_bytes,
                                                 " bytes; by its codec and sizes they should have ",
                                                 layout.bytes));
}

absl::StatusOr<std::string> CheckpointFingerprint(const std::string& folder) {
  std::vector<std::string> lines;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name != "config.json" && entry.path().extension() != ".safetensors") continue;
    std::error_code size_error;
    std::error_code time_error;
    const uint64_t size = entry.file_size(size_error);
    const auto time = entry.last_write_time(time_error).time_since_epoch().count();
    if (size_error || time_error) error = size_error ? size_error : time_error;
    lines.push_back(absl::StrCat(name, " ", size, " ", time));
  }
  if (error) {
    return absl::Status(absl::ErrnoToStatusCode(error.value()),
                        absl::StrCat(folder, ": ", error.message()));
  }
  std::sort(lines.begin(), lines.end());
  return absl::StrFormat("%016x", Hash(absl::StrJoin(lines, "\n")));
}

absl::Status PackExperts(const Safetensors& files,
                         const ModelConfig& config,
                         const ExpertPackHeader& header,
                         const std::string& path,
                         const std::function<void(uint64_t done, uint64_t total)>& on_progress) {
  PREGATE_ASSIGN_OR_RETURN(const RecordLayout layout, LayoutOfPack(header, config));
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<ExpertPackWriter> writer,
                           ExpertPackWriter::Create(path, header));
  const TensorNames& names = config.family->names;
  const std::pair<absl::string_view, const EncodedMatrix&> matrices[] = {
      {names.expert_up, layout.up},
      {names.expert_gate, layout.gate},
      {names.expert_down, layout.down}};
  const uint64_t total = uint64_t{header.num_layers} * header.num_experts;
  std::vector<std::byte> record(layout.bytes);
  std::vector<float> weights;
  for (uint64_t i = writer->num_written(); i < total; ++i) {
    std::fill(record.begin(), record.end(), std::byte{0});
    for (const auto& [pattern, matrix] : matrices) {
      if (matrix.out == 0) continue;
      const std::string name =
          absl::Substitute(pattern, i / header.num_experts, i % header.num_experts);
      PREGATE_RETURN_IF_ERROR(ReadMatrix(files, name, matrix, weights));
      EncodeMatrix(layout, matrix, weights.data(), absl::MakeSpan(record));
    }
    PREGATE_RETURN_IF_ERROR(writer->Append(record));
    if (on_progress) on_progress(i + 1, total);
  }
  return writer->Finish();
}

}  // namespace pregate
