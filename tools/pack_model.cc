#include "tools/pack_model.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/substitute.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/model/model_config.h"
#include "core/model/pack_experts.h"
#include "core/storage/expert_pack.h"
#include "core/storage/whole_file.h"
#include "nlohmann/json.hpp"
#include "tools/cli.h"
#include "tools/read_json.h"
#include "tools/unfinished_folder.h"

namespace pregate {
namespace {

namespace fs = std::filesystem;

// What a model folder may hold beside weights and config.json: the tokenizer, its template, the
// licence, the model card.
bool IsCopied(const std::string& name) {
  if (name == "config.json" || absl::EndsWith(name, ".safetensors.index.json")) return false;
  for (const char* ending : {".json", ".jinja", ".txt", ".model", ".md"}) {
    if (absl::EndsWith(name, ending)) return true;
  }
  return absl::StartsWith(name, "LICENSE") || absl::StartsWith(name, "NOTICE");
}

absl::Status CopyFiles(const std::string& from, const UnfinishedFolder& to) {
  PREGATE_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(from));
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(from, "/", name);
    std::error_code error;
    if (!IsCopied(name) || !fs::is_regular_file(path, error)) continue;
    fs::copy_file(path, to / name, error);
    if (error) return ErrnoStatus(error.value(), absl::StrCat("cannot copy ", path));
  }
  return absl::OkStatus();
}

// config.json, with the dtype that the experts have.
absl::Status WriteConfig(const PackModelOptions& options,
                         const ModelConfig& config,
                         Dtype dtype,
                         const UnfinishedFolder& out) {
  const std::string path = absl::StrCat(options.folder, "/config.json");
  constexpr uint64_t kMaxBytes = uint64_t{64} << 20;
  PREGATE_ASSIGN_OR_RETURN(std::string text, ReadWholeFile(path, kMaxBytes));
  if (config.dtype != dtype) {
    auto json = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
    }
    json.erase("torch_dtype");
    json["dtype"] = std::string(DtypeName(dtype));
    text = json.dump(2) + "\n";
  }
  return WriteWholeFile(out / "config.json", text);
}

// The tensors that are no expert's, in alphabetical order.
std::vector<std::string> DenseNames(const ModelConfig& config, const Safetensors& files) {
  const TensorNames& names = config.family->names;
  std::set<std::string> experts;
  for (const absl::string_view pattern : {names.expert_up, names.expert_gate, names.expert_down}) {
    for (uint32_t layer = 0; !pattern.empty() && layer < config.num_layers; ++layer) {
      for (uint32_t expert = 0; expert < config.num_experts; ++expert) {
        experts.insert(absl::Substitute(pattern, layer, expert));
      }
    }
  }
  std::vector<std::string> dense;
  for (const auto& [name, tensor] : files.tensors()) {
    if (experts.count(name) == 0) dense.push_back(name);
  }
  return dense;
}

absl::Status WriteDense(const Safetensors& files,
                        const std::vector<std::string>& names,
                        const UnfinishedFolder& out) {
  std::vector<TensorSpec> specs;
  uint64_t bytes = 0;
  for (const std::string& name : names) {
    const TensorView& tensor = *files.Find(name);
    specs.push_back({.name = name, .dtype = tensor.dtype, .shape = tensor.shape});
    bytes += tensor.bytes.size();
  }
  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                           SafetensorsWriter::Create(out / kDenseName, specs, {{"format", "pt"}}));
  Progress progress("writing dense tensors", std::max<uint64_t>(bytes, 1));
  for (const std::string& name : names) {
    const TensorView& tensor = *files.Find(name);
    PREGATE_RETURN_IF_ERROR(writer->Append(tensor.bytes));
    progress.Advance(tensor.bytes.size());
  }
  PREGATE_RETURN_IF_ERROR(writer->Finish());
  return WriteDenseChecksums(out.path(), names, files);
}

uint64_t FileSize(const std::string& path) {
  std::error_code error;
  const uint64_t bytes = fs::file_size(path, error);
  return error ? 0 : bytes;
}

// Better said before the work than behind it.
absl::Status CheckRoom(const ExpertPackHeader& header, const UnfinishedFolder& out) {
  const uint64_t bytes = header.record_bytes * header.num_layers * header.num_experts;
  const uint64_t written =
      FileSize(out / kPackName) + FileSize(absl::StrCat(out / kPackName, ".partial"));
  std::error_code error;
  const fs::space_info space = fs::space(out.path(), error);
  if (error || bytes <= space.available + written) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(out.path(),
                                                   ": the experts take ",
                                                   FormatBytes(bytes),
                                                   ", and its disk has ",
                                                   FormatBytes(space.available),
                                                   " free"));
}

absl::Status WritePack(const Safetensors& files,
                       const ModelConfig& config,
                       const ExpertPackHeader& header,
                       const UnfinishedFolder& out) {
  const std::string path = out / kPackName;
  // A run that was killed behind the experts has left all of them.
  const absl::StatusOr<ExpertPack> left = ExpertPack::Open(path);
  if (left.ok() && left->header() == header) return absl::OkStatus();
  Progress progress("packing experts", uint64_t{header.num_layers} * header.num_experts);
  uint64_t shown = 0;
  return PackExperts(files, config, header, path, [&](uint64_t done, uint64_t) {
    progress.Advance(done - shown);
    shown = done;
  });
}

// What is packed, and how.
struct Checkpoint {
  ModelConfig config;
  Safetensors files;
  Dtype dtype;
  ExpertPackHeader header;
};

absl::Status Fill(const PackModelOptions& options,
                  const Checkpoint& checkpoint,
                  const UnfinishedFolder& out) {
  const auto& [config, files, dtype, header] = checkpoint;
  PREGATE_RETURN_IF_ERROR(CheckRoom(header, out));
  PREGATE_RETURN_IF_ERROR(WritePack(files, config, header, out));
  PREGATE_RETURN_IF_ERROR(WriteDense(files, DenseNames(config, files), out));
  PREGATE_RETURN_IF_ERROR(CopyFiles(options.folder, out));
  return WriteConfig(options, config, dtype, out);
}

}  // namespace

absl::StatusOr<PackedModel> PackModel(const PackModelOptions& options) {
  if (FileSize(absl::StrCat(options.folder, "/", kPackName)) > 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        options.folder, " is packed already; give the checkpoint that it was made from"));
  }
  PREGATE_ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(options.folder));
  PREGATE_ASSIGN_OR_RETURN(Safetensors files, Safetensors::OpenFolder(options.folder));
  PREGATE_ASSIGN_OR_RETURN(const std::string source, CheckpointFingerprint(options.folder));
  const Dtype dtype = options.dtype.value_or(CheckpointDtype(config, files));
  PREGATE_ASSIGN_OR_RETURN(ExpertPackHeader header,
                           PackHeaderOf(config, options.codec, dtype, source));
  const Checkpoint checkpoint = {.config = std::move(config),
                                 .files = std::move(files),
                                 .dtype = dtype,
                                 .header = std::move(header)};

  PREGATE_ASSIGN_OR_RETURN(
      UnfinishedFolder out,
      UnfinishedFolder::Create(options.out, {kPackName, absl::StrCat(kPackName, ".partial")}));
  const absl::Status filled = Fill(options, checkpoint, out);
  // Once the checkpoint is mended it is another one, for which nothing here is of use.
  if (absl::IsInvalidArgument(filled)) out.Discard();
  PREGATE_RETURN_IF_ERROR(filled);
  const PackedModel packed = {
      .num_experts = uint64_t{checkpoint.header.num_layers} * checkpoint.header.num_experts,
      .pack_bytes = FileSize(out / kPackName),
      .dense_bytes = FileSize(out / kDenseName)};
  PREGATE_RETURN_IF_ERROR(out.Finish());
  return packed;
}

absl::Status WriteDenseChecksums(const std::string& folder,
                                 const std::vector<std::string>& names,
                                 const Safetensors& tensors) {
  nlohmann::ordered_json checksums = nlohmann::ordered_json::object();
  for (const std::string& name : names) checksums[name] = TensorChecksum(*tensors.Find(name));
  return WriteWholeFile(absl::StrCat(folder, "/", kChecksumsName), checksums.dump(1) + "\n");
}

std::string TensorChecksum(const TensorView& tensor) {
  return absl::StrFormat(
      "%016x",
      Checksum(absl::string_view(reinterpret_cast<const char*>(tensor.bytes.data()),
                                 tensor.bytes.size())));
}

}  // namespace pregate
