#include "tools/synthesize.h"

#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/storage/safetensors.h"
#include "tools/byte_tokenizer.h"
#include "tools/cli.h"
#include "tools/model_shape.h"

namespace pregate {
namespace {

// Standard normal numbers that depend on the seed and the tensor's name alone: SplitMix64 (Steele,
// Lea and Flood 2014) through Box and Muller's transform, since the standard library's
// distributions differ between its implementations.
class NormalNumbers {
 public:
  NormalNumbers(uint64_t seed, absl::string_view name) : state_(seed) {
    for (const char c : name) state_ = Next() ^ static_cast<unsigned char>(c);
  }

  void Fill(std::vector<float>& values, double mean, double deviation) {
    for (size_t i = 0; i < values.size(); i += 2) {
      const double radius = deviation * std::sqrt(-2 * std::log(Uniform()));
      const double angle = 2 * std::numbers::pi * Uniform();
      values[i] = static_cast<float>(mean + radius * std::cos(angle));
      if (i + 1 < values.size()) {
        values[i + 1] = static_cast<float>(mean + radius * std::sin(angle));
      }
    }
  }

 private:
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  // In (0, 1).
  double Uniform() { return (static_cast<double>(Next() >> 11) + 0.5) * 0x1p-53; }

  uint64_t state_;
};

// The nearest bfloat16, of two equally near ones the even one. Finite values only.
uint16_t ToBfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

absl::Status WriteFile(const std::filesystem::path& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  if (!file) return absl::UnavailableError(absl::StrCat("cannot write ", path.string()));
  return absl::OkStatus();
}

absl::Status AppendValues(const std::vector<float>& values,
                          TensorDtype dtype,
                          SafetensorsWriter& writer) {
  if (dtype == TensorDtype::kF32) {
    return writer.Append(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                                             values.size() * sizeof(float)));
  }
  std::vector<uint16_t> rounded(values.size());
  for (size_t i = 0; i < values.size(); ++i) rounded[i] = ToBfloat16(values[i]);
  return writer.Append(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(rounded.data()),
                                           rounded.size() * sizeof(uint16_t)));
}

uint64_t NumElements(const TensorSpec& spec) {
  uint64_t count = 1;
  for (const int64_t extent : spec.shape) count *= static_cast<uint64_t>(extent);
  return count;
}

absl::Status WriteWeights(const std::string& path,
                          const std::vector<RandomTensor>& tensors,
                          uint64_t seed) {
  constexpr uint64_t kChunk = 1 << 20;  // elements in memory at a time
  std::vector<TensorSpec> specs;
  uint64_t total = 0;
  for (const RandomTensor& tensor : tensors) {
    specs.push_back(tensor.spec);
    total += NumElements(tensor.spec);
  }
  PREGATE_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsWriter> writer,
                           SafetensorsWriter::Create(path, specs, {{"format", "pt"}}));
  Progress progress("writing weights", total);
  for (const RandomTensor& tensor : tensors) {
    NormalNumbers numbers(seed, tensor.spec.name);
    for (uint64_t rest = NumElements(tensor.spec); rest > 0;) {
      std::vector<float> values(std::min(rest, kChunk));
      numbers.Fill(values, tensor.mean, tensor.deviation);
      PREGATE_RETURN_IF_ERROR(AppendValues(values, tensor.spec.dtype, *writer));
      rest -= values.size();
      progress.Advance(values.size());
    }
  }
  return writer->Finish();
}

absl::Status WriteFolder(const std::filesystem::path& folder, const SynthesizeOptions& options) {
  PREGATE_ASSIGN_OR_RETURN(const ModelShape shape, ParseModelShape(options.config));
  PREGATE_ASSIGN_OR_RETURN(
      const TokenizerFiles tokenizer,
      MakeByteTokenizer(shape.vocab_size, shape.eos_token_ids, shape.max_context));
  nlohmann::ordered_json config = options.config;
  config.erase("torch_dtype");
  config["dtype"] = options.dtype;
  nlohmann::ordered_json generation = nlohmann::ordered_json::object();
  if (!shape.eos_token_ids.empty()) generation["eos_token_id"] = config["eos_token_id"];

  PREGATE_RETURN_IF_ERROR(WriteFile(folder / "config.json", config.dump(2) + "\n"));
  PREGATE_RETURN_IF_ERROR(WriteFile(folder / "generation_config.json", generation.dump(2) + "\n"));
  PREGATE_RETURN_IF_ERROR(WriteFile(folder / "tokenizer.json", tokenizer.tokenizer));
  PREGATE_RETURN_IF_ERROR(WriteFile(folder / "tokenizer_config.json", tokenizer.tokenizer_config));
  const TensorDtype dtype = options.dtype == "float32" ? TensorDtype::kF32 : TensorDtype::kBf16;
  return WriteWeights(folder / "model.safetensors", TensorsOf(shape, dtype), options.seed);
}

}  // namespace

nlohmann::ordered_json ShapeConfig(const std::string& name) {
  PREGATE_CHECK(name == "S", name);
  return {{"architectures", {"SwitchPregateForCausalLM"}},
          {"model_type", "switch_pregate"},
          {"vocab_size", 32000},
          {"hidden_size", 512},
          {"num_hidden_layers", 6},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 8},
          {"head_dim", 64},
          {"moe_intermediate_size", 2048},
          {"num_experts", 8},
          {"num_experts_per_tok", 1},
          {"hidden_act", "relu"},
          {"use_pregate", true},
          {"max_position_embeddings", 1024},
          {"rope_theta", 10000.0},
          {"rms_norm_eps", 1e-6},
          {"tie_word_embeddings", false},
          {"bos_token_id", nullptr},
          {"eos_token_id", 0}};
}

absl::Status Synthesize(const SynthesizeOptions& options) {
  namespace fs = std::filesystem;
  const fs::path out = fs::path(absl::StrCat(options.out, "/")).parent_path();
  std::error_code error;
  if (fs::exists(out, error) && !fs::is_empty(out, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.out, error ? " is not a folder" : " exists and is not empty"));
  }
  const fs::path unfinished = absl::StrCat(out.string(), ".", getpid(), ".tmp");
  if (!fs::create_directories(unfinished, error)) {
    return absl::UnavailableError(
        absl::StrCat("cannot create ", unfinished.string(), ": ", error.message()));
  }
  absl::Status status = WriteFolder(unfinished, options);
  if (status.ok()) {
    fs::rename(unfinished, out, error);
    if (!error) return absl::OkStatus();
  }
  std::error_code ignored;
  fs::remove_all(unfinished, ignored);
  if (!status.ok()) return status;
  return absl::UnavailableError(
      absl::StrCat("cannot create ", out.string(), ": ", error.message()));
}

}  // namespace pregate
