#include "tools/inspect.h"

#include <filesystem>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/base/bytes.h"
#include "core/base/status_macros.h"
#include "core/model/pack_experts.h"
#include "tools/read_json.h"

namespace pregate {
namespace {

// Sizes that config.json may give: the key, and what the table calls it.
struct ConfigRow {
  const char* key;
  const char* label;
};
constexpr ConfigRow kConfigRows[] = {{"num_hidden_layers", "layers"},
                                     {"num_experts", "experts a layer"},
                                     {"num_experts_per_tok", "experts a token"},
                                     {"hidden_size", "hidden"},
                                     {"moe_intermediate_size", "expert intermediate"},
                                     {"num_attention_heads", "heads"},
                                     {"num_key_value_heads", "key/value heads"},
                                     {"head_dim", "head dimension"},
                                     {"max_position_embeddings", "context"},
                                     {"vocab_size", "vocabulary"},
                                     {"tie_word_embeddings", "tied head"},
                                     {"use_pregate", "pre-gated"}};

bool IsNumber(absl::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == absl::string_view::npos;
}

std::string GroupName(const std::string& tensor) {
  return absl::StrJoin(
      absl::StrSplit(tensor, '.'), ".", [](std::string* out, absl::string_view piece) {
        absl::StrAppend(out, IsNumber(piece) ? "*" : piece);
      });
}

std::string Family(const nlohmann::json& config) {
  const auto family = config.find("model_type");
  return family != config.end() && family->is_string() ? family->get<std::string>() : "unknown";
}

void Add(const TensorView& tensor, ModelInspection::Part& part) {
  ++part.tensors;
  part.parameters += tensor.bytes.size() / TensorDtypeSize(tensor.dtype);
  part.bytes += tensor.bytes.size();
}

nlohmann::json ToJson(const ModelInspection::Part& part) {
  return {{"tensors", part.tensors}, {"parameters", part.parameters}, {"bytes", part.bytes}};
}

void AppendRow(absl::string_view label, const std::string& value, std::string& table) {
  absl::StrAppendFormat(&table, "%-20s %s\n", label, value);
}

void AppendPart(absl::string_view label, const ModelInspection::Part& part, std::string& table) {
  absl::StrAppendFormat(&table,
                        "%-20s %8d %16d %12s\n",
                        label,
                        part.tensors,
                        part.parameters,
                        FormatBytes(part.bytes));
}

// The weights of all experts by the pack's properties; 0 when they do not say.
uint64_t ExpertParameters(const ExpertPackHeader& header) {
  const auto property = [&](const char* key) {
    const auto found = header.properties.find(key);
    return found == header.properties.end() ? std::string() : found->second;
  };
  uint32_t hidden_size = 0;
  uint32_t expert_width = 0;
  if (!absl::SimpleAtoi(property("hidden_size"), &hidden_size) ||
      !absl::SimpleAtoi(property("expert_width"), &expert_width)) {
    return 0;
  }
  const uint64_t matrices = property("experts") == "gated" ? 3 : 2;
  return matrices * hidden_size * expert_width * header.num_layers * header.num_experts;
}

nlohmann::ordered_json ToJson(const PackInspection& pack) {
  nlohmann::ordered_json json;
  json["num_layers"] = pack.header.num_layers;
  json["num_experts"] = pack.header.num_experts;
  json["record_bytes"] = pack.header.record_bytes;
  json["stride_bytes"] = pack.stride_bytes;
  json["parameters"] = pack.parameters;
  json["bytes"] = pack.bytes();
  json["properties"] = pack.header.properties;
  return json;
}

}  // namespace

absl::StatusOr<PackInspection> InspectPack(const std::string& path) {
  PREGATE_ASSIGN_OR_RETURN(const ExpertPack pack, ExpertPack::Open(path));
  return PackInspection{.header = pack.header(),
                        .stride_bytes = pack.stride_bytes(),
                        .parameters = ExpertParameters(pack.header())};
}

absl::StatusOr<ModelInspection> Inspect(const std::string& folder) {
  ModelInspection inspection;
  PREGATE_ASSIGN_OR_RETURN(inspection.config, ReadJson(absl::StrCat(folder, "/config.json")));
  const std::string pack_path = absl::StrCat(folder, "/", kPackName);
  std::error_code ignored;
  const bool is_packed = std::filesystem::exists(pack_path, ignored);
  PREGATE_ASSIGN_OR_RETURN(const Safetensors tensors,
                           is_packed ? Safetensors::Open(absl::StrCat(folder, "/", kDenseName))
                                     : Safetensors::OpenFolder(folder));
  if (is_packed) {
    PREGATE_ASSIGN_OR_RETURN(inspection.pack, InspectPack(pack_path));
    inspection.experts = {.tensors = inspection.pack->num_records(),
                          .parameters = inspection.pack->parameters,
                          .bytes = inspection.pack->bytes()};
  }
  std::set<absl::string_view> dtypes;
  std::map<std::tuple<std::string, TensorDtype, std::vector<int64_t>>, uint64_t> groups;
  for (const auto& [name, tensor] : tensors.tensors()) {
    Add(tensor, absl::StrContains(name, ".experts.") ? inspection.experts : inspection.dense);
    dtypes.insert(TensorDtypeName(tensor.dtype));
    ++groups[{GroupName(name), tensor.dtype, tensor.shape}];
  }
  inspection.dtype = absl::StrJoin(dtypes, "+");
  for (const auto& [key, count] : groups) {
    inspection.groups.push_back({.name = std::get<0>(key),
                                 .dtype = std::get<1>(key),
                                 .shape = std::get<2>(key),
                                 .count = count});
  }
  return inspection;
}

std::string InspectionTable(const ModelInspection& inspection) {
  std::string table;
  const nlohmann::json& config = inspection.config;
  AppendRow("family", Family(config), table);
  for (const ConfigRow& row : kConfigRows) {
    const auto value = config.find(row.key);
    if (value != config.end()) AppendRow(row.label, value->dump(), table);
  }
  AppendRow("dtype", inspection.dtype, table);
  absl::StrAppendFormat(&table, "\n%-20s %8s %16s %12s\n", "part", "tensors", "parameters", "size");
  AppendPart("dense", inspection.dense, table);
  AppendPart("experts", inspection.experts, table);
  AppendPart("all",
             {.tensors = inspection.dense.tensors + inspection.experts.tensors,
              .parameters = inspection.dense.parameters + inspection.experts.parameters,
              .bytes = inspection.dense.bytes + inspection.experts.bytes},
             table);
  absl::StrAppend(&table, "\n");
  for (const TensorGroup& group : inspection.groups) {
    absl::StrAppendFormat(&table,
                          "%-56s %5d x %-4s [%s]\n",
                          group.name,
                          group.count,
                          TensorDtypeName(group.dtype),
                          absl::StrJoin(group.shape, ", "));
  }
  if (inspection.pack.has_value()) {
    absl::StrAppend(&table, "\n", kPackName, "\n", InspectionTable(*inspection.pack));
  }
  return table;
}

std::string InspectionTable(const PackInspection& inspection) {
  const ExpertPackHeader& header = inspection.header;
  std::string table;
  for (const auto& [key, value] : header.properties) AppendRow(key, value, table);
  AppendRow(
      "layers", absl::StrCat(header.num_layers, " of ", header.num_experts, " experts"), table);
  AppendRow(
      "record",
      absl::StrCat(
          FormatBytes(header.record_bytes), ", one every ", inspection.stride_bytes, " bytes"),
      table);
  AppendRow("all records", FormatBytes(inspection.bytes()), table);
  if (inspection.parameters > 0) {
    AppendRow("bytes a weight",
              absl::StrFormat("%.3f",
                              static_cast<double>(inspection.bytes()) /
                                  static_cast<double>(inspection.parameters)),
              table);
  }
  return table;
}

std::string InspectionJson(const PackInspection& inspection) { return ToJson(inspection).dump(); }

std::string InspectionJson(const ModelInspection& inspection) {
  nlohmann::ordered_json json;
  json["family"] = Family(inspection.config);
  json["dtype"] = inspection.dtype;
  for (const ConfigRow& row : kConfigRows) {
    const auto value = inspection.config.find(row.key);
    if (value != inspection.config.end()) json[row.key] = *value;
  }
  json["dense"] = ToJson(inspection.dense);
  json["experts"] = ToJson(inspection.experts);
  json["parameters"] = inspection.dense.parameters + inspection.experts.parameters;
  json["bytes"] = inspection.dense.bytes + inspection.experts.bytes;
  json["tensors"] = nlohmann::ordered_json::array();
  for (const TensorGroup& group : inspection.groups) {
    json["tensors"].push_back({{"name", group.name},
                               {"dtype", std::string(TensorDtypeName(group.dtype))},
                               {"shape", group.shape},
                               {"count", group.count}});
  }
  if (inspection.pack.has_value()) json["pack"] = ToJson(*inspection.pack);
  return json.dump();
}

}  // namespace pregate
