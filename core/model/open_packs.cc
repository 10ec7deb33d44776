#include "core/model/open_packs.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/model/pack_experts.h"

namespace pregate {
namespace {

absl::StatusOr<std::string> PackFolder(const std::string& option) {
  if (!option.empty()) return option;
  if (const char* const cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    return absl::StrCat(cache, "/pregate/packs");
  }
  if (const char* const home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return absl::StrCat(home, "/.cache/pregate/packs");
  }
  return absl::FailedPreconditionError(
      "pack_folder: not given, and neither XDG_CACHE_HOME nor HOME says where the user's cache is");
}

// Opens what is there, else packs.
absl::StatusOr<ExpertPack> OpenOrPack(const EngineOptions& options,
                                      const ModelConfig& config,
                                      const Safetensors& files,
                                      Codec codec,
                                      Dtype dtype,
                                      const Logger& logger) {
  PREGATE_ASSIGN_OR_RETURN(const std::string source, CheckpointFingerprint(options.model));
  PREGATE_ASSIGN_OR_RETURN(const ExpertPackHeader header,
                           PackHeaderOf(config, codec, dtype, source));
  PREGATE_ASSIGN_OR_RETURN(const std::string folder, PackFolder(options.experts.pack_folder));
  std::string path = absl::StrCat(folder, "/", source, "-", CodecName(codec));
  if (codec == Codec::kNone) absl::StrAppend(&path, "-", DtypeName(dtype));
  absl::StrAppend(&path, ".pack");

  absl::StatusOr<ExpertPack> pack = ExpertPack::Open(path);
  if (pack.ok() && pack->header() == header) return pack;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::Status(absl::ErrnoToStatusCode(error.value()),
                        absl::StrCat("pack_folder: cannot make ", folder, ": ", error.message()));
  }
  logger.Info(
      "packing the model's experts",
      {{"path", path},
       {"codec", CodecName(codec)},
       {"bytes", FormatBytes(header.record_bytes * header.num_layers * header.num_experts)}});
  uint64_t next_tenth = 1;
  PREGATE_RETURN_IF_ERROR(
      PackExperts(files, config, header, path, [&](uint64_t done, uint64_t total) {
        if (done * 10 < next_tenth * total) return;
        next_tenth = done * 10 / total + 1;
        logger.Info("packing experts", {{"done", done}, {"of", total}});
      }));
  return ExpertPack::Open(path);
}

// The pack in the model's own folder must be what was asked for.
absl::Status CheckOwnPack(const RecordLayout& layout, Codec codec, Dtype dtype) {
  if (layout.codec != codec) {
    return absl::FailedPreconditionError(absl::StrCat("expert_codec: ",
                                                      CodecName(codec),
                                                      " was asked for, and the folder's experts "
                                                      "are packed as ",
                                                      CodecName(layout.codec),
                                                      "; use --expert-codec ",
                                                      CodecName(layout.codec),
                                                      ", or pack the checkpoint again"));
  }
  if (layout.codec != Codec::kNone || layout.dtype == dtype) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("dtype: ",
                                                    DtypeName(dtype),
                                                    " was asked for, and the folder's experts are "
                                                    "packed as ",
                                                    DtypeName(layout.dtype),
                                                    "; use --dtype ",
                                                    DtypeName(layout.dtype),
                                                    ", or pack the checkpoint again"));
}

}  // namespace

bool HasOwnPack(const std::string& folder) {
  std::error_code ignored;
  return std::filesystem::exists(absl::StrCat(folder, "/", kPackName), ignored);
}

absl::StatusOr<std::string> ExpertCodecOf(const EngineOptions& options) {
  const std::string& asked = options.experts.codec;
  if ((!asked.empty() && asked != "auto") || !HasOwnPack(options.model)) return asked;
  PREGATE_ASSIGN_OR_RETURN(const ExpertPack pack,
                           ExpertPack::Open(absl::StrCat(options.model, "/", kPackName)));
  const auto codec = pack.header().properties.find("codec");
  // What is not there is refused where the layout is read.
  return codec == pack.header().properties.end() ? asked : codec->second;
}

absl::StatusOr<Safetensors> OpenCheckpoint(const std::string& folder) {
  return HasOwnPack(folder) ? Safetensors::Open(absl::StrCat(folder, "/", kDenseName))
                            : Safetensors::OpenFolder(folder);
}

absl::StatusOr<OpenedPacks> OpenPacks(const EngineOptions& options,
                                      const ModelConfig& config,
                                      const Safetensors& files,
                                      const MemoryPlan& plan,
                                      Dtype dtype,
                                      const Logger& logger) {
  OpenedPacks opened;
  std::vector<Codec> codecs = {plan.codec};
  if (plan.smaller_codec.has_value()) codecs.push_back(*plan.smaller_codec);
  const bool has_own = HasOwnPack(options.model);
  if (has_own && codecs.size() > 1) {
    return absl::FailedPreconditionError(
        "expert_codec: adaptive needs the checkpoint, to encode it in two ways; the folder has "
        "only a pack of one");
  }
  for (const Codec codec : codecs) {
    absl::StatusOr<ExpertPack> pack =
        has_own ? ExpertPack::Open(absl::StrCat(options.model, "/", kPackName))
                : OpenOrPack(options, config, files, codec, dtype, logger);
    if (!pack.ok()) return pack.status();
    absl::StatusOr<RecordLayout> layout = LayoutOfPack(pack->header(), config);
    if (!layout.ok()) {
      return absl::Status(layout.status().code(),
                          absl::StrCat(pack->path(), ": ", layout.status().message()));
    }
    if (has_own) PREGATE_RETURN_IF_ERROR(CheckOwnPack(*layout, codec, dtype));
    opened.packs.push_back(*std::move(pack));
    opened.layouts.push_back(*std::move(layout));
  }
  return opened;
}

}  // namespace pregate
