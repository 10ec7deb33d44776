#include "bench/trace_json.h"

#include <zlib.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace pregate {
namespace {

constexpr size_t kMostBytes = size_t{1} << 30;  // of a trace, decompressed

// The whole file; what is not compressed comes as it is.
absl::StatusOr<std::string> ReadMaybeCompressed(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (file == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::string bytes;
  char buffer[1 << 16];
  for (;;) {
    const int count = gzread(file.get(), buffer, sizeof(buffer));
    if (count < 0) {
      int code = 0;
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", gzerror(file.get(), &code)));
    }
    if (count == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(count));
    if (bytes.size() > kMostBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": has more than ", kMostBytes, " bytes"));
    }
  }
}

absl::StatusOr<uint32_t> ReadCount(const nlohmann::json& json, const char* key, uint32_t most) {
  const auto found = json.find(key);
  if (found != json.end() && found->is_number_unsigned()) {
    const auto value = found->get<uint64_t>();
    if (value >= 1 && value <= most) return static_cast<uint32_t>(value);
  }
  return absl::InvalidArgumentError(absl::StrCat(key, " is not a whole number from 1 to ", most));
}

absl::StatusOr<RoutingTrace::Sequence> ReadSequence(const nlohmann::json& json,
                                                    const RoutingTrace& trace) {
  RoutingTrace::Sequence sequence;
  const auto id = json.find("id");
  if (id != json.end()) sequence.id = id->is_string() ? id->get<std::string>() : id->dump();
  const auto experts = json.find("experts");
  const auto refuse = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("sequence ", sequence.id, ": ", what));
  };
  if (experts == json.end() || !experts->is_array()) return refuse("has no array of experts");
  for (const nlohmann::json& token : *experts) {
    if (!token.is_array() || token.size() != trace.num_layers) {
      return refuse(absl::StrCat("a token does not have ", trace.num_layers, " layers"));
    }
    for (const nlohmann::json& layer : token) {
      if (!layer.is_array() || layer.size() != trace.experts_per_token) {
        return refuse(absl::StrCat("a layer does not have ", trace.experts_per_token, " experts"));
      }
      for (const nlohmann::json& expert : layer) {
        if (!expert.is_number_unsigned() || expert.get<uint64_t>() >= trace.num_experts) {
          return refuse(
              absl::StrCat("expert ", expert.dump(), " is not one of ", trace.num_experts));
        }
        sequence.expert_ids.push_back(expert.get<uint16_t>());
      }
    }
  }
  return sequence;
}

absl::StatusOr<RoutingTrace> ParseJsonTrace(absl::string_view text) {
  const nlohmann::json json =
      nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError("is neither a routing trace nor a JSON object");
  }
  RoutingTrace trace;
  PREGATE_ASSIGN_OR_RETURN(trace.num_layers, ReadCount(json, "num_layers", 4096));
  PREGATE_ASSIGN_OR_RETURN(trace.num_experts, ReadCount(json, "num_experts", 65536));
  PREGATE_ASSIGN_OR_RETURN(trace.experts_per_token, ReadCount(json, "top_k", trace.num_experts));
  const auto model = json.find("model");
  if (model != json.end() && model->is_string()) trace.model = model->get<std::string>();
  const auto sequences = json.find("sequences");
  if (sequences == json.end() || !sequences->is_array()) {
    return absl::InvalidArgumentError("has no array of sequences");
  }
  for (const nlohmann::json& sequence : *sequences) {
    PREGATE_ASSIGN_OR_RETURN(RoutingTrace::Sequence read, ReadSequence(sequence, trace));
    trace.sequences.push_back(std::move(read));
  }
  return trace;
}

}  // namespace

absl::StatusOr<RoutingTrace> ReadAnyRoutingTrace(const std::string& path) {
  PREGATE_ASSIGN_OR_RETURN(const std::string bytes, ReadMaybeCompressed(path));
  absl::StatusOr<RoutingTrace> trace =
      absl::StartsWith(bytes, "PGROUTES") ? ParseRoutingTrace(bytes) : ParseJsonTrace(bytes);
  if (trace.ok()) return trace;
  return absl::Status(trace.status().code(), absl::StrCat(path, ": ", trace.status().message()));
}

}  // namespace pregate
