#include "core/storage/safetensors.h"

#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/storage/safetensors_header.h"
#include "nlohmann/json.hpp"

namespace pregate {
namespace {

// Of an index: several times what the largest models' have.
constexpr uint64_t kMaxIndexBytes = uint64_t{64} << 20;

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

// The JSON text of an index; INVALID_ARGUMENT when it is none or has a key twice.
absl::StatusOr<nlohmann::json> ParseIndex(absl::Span<const std::byte> bytes) {
  using Event = nlohmann::json::parse_event_t;
  std::set<std::string> keys;  // of the object being read, below the top
  std::string duplicate;
  const auto look = [&](int depth, Event event, nlohmann::json& parsed) {
    if (event == Event::object_start) keys.clear();
    if (event == Event::key && depth == 2) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.insert(key).second) duplicate = key;
    }
    return true;
  };
  const char* text = reinterpret_cast<const char*>(bytes.data());
  nlohmann::json json =
      nlohmann::json::parse(text, text + bytes.size(), look, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("not JSON");
  if (!duplicate.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("'", duplicate, "' appears twice"));
  }
  return json;
}

// Names of tensors by the name of the shard they are in.
absl::StatusOr<std::map<std::string, std::vector<std::string>>> ReadWeightMap(
    absl::Span<const std::byte> bytes) {
  PREGATE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseIndex(bytes));
  const auto weight_map = json.is_object() ? json.find("weight_map") : json.end();
  if (weight_map == json.end() || !weight_map->is_object()) {
    return absl::InvalidArgumentError("no object 'weight_map'");
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : weight_map->items()) {
    if (!shard.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor, "': not a file's name"));
    }
    const auto& name = shard.get_ref<const std::string&>();
    if (name.empty() || name[0] == '.' || absl::StrContains(name, '/')) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", tensor, "': '", name, "' is not a file of the same folder"));
    }
    shards[name].push_back(tensor);
  }
  return shards;
}

}  // namespace

absl::StatusOr<Safetensors> Safetensors::Open(const std::string& path) {
  PREGATE_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  auto file = std::make_unique<const MappedFile>(std::move(mapped));
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(file->bytes());
  if (!header.ok()) return InFile(path, header.status());

  Safetensors result;
  for (SafetensorsHeader::Tensor& tensor : header->tensors) {
    result.tensors_.emplace(std::move(tensor.spec.name),
                            TensorView{.dtype = tensor.spec.dtype,
                                       .shape = std::move(tensor.spec.shape),
                                       .bytes = file->bytes().subspan(header->size + tensor.begin,
                                                                      tensor.end - tensor.begin),
                                       .file = file->path()});
  }
  result.metadata_ = std::move(header->metadata);
  result.files_.push_back(std::move(file));
  return result;
}

absl::StatusOr<Safetensors> Safetensors::OpenFolder(const std::string& folder) {
  absl::StatusOr<Safetensors> single = Open(absl::StrCat(folder, "/model.safetensors"));
  if (!absl::IsNotFound(single.status())) return single;

  const std::string index_path = absl::StrCat(folder, "/model.safetensors.index.json");
  absl::StatusOr<MappedFile> index = MappedFile::Open(index_path);
  if (absl::IsNotFound(index.status())) {
    return absl::NotFoundError(absl::StrCat(
        folder, ": neither model.safetensors nor model.safetensors.index.json is there"));
  }
  if (!index.ok()) return index.status();
  if (index->bytes().size() > kMaxIndexBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        index_path, ": an index of ", index->bytes().size(), " bytes, more than ", kMaxIndexBytes));
  }
  auto shards = ReadWeightMap(index->bytes());
  if (!shards.ok()) return InFile(index_path, shards.status());

  Safetensors result;
  for (const auto& [name, tensors] : *shards) {
    const std::string path = absl::StrCat(folder, "/", name);
    PREGATE_ASSIGN_OR_RETURN(Safetensors shard, Open(path));
    for (const std::string& tensor : tensors) {
      auto node = shard.tensors_.extract(tensor);
      if (node.empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": no tensor '", tensor, "', which ", index_path, " says is there"));
      }
      result.tensors_.insert(std::move(node));
    }
    if (result.files_.empty()) result.metadata_ = std::move(shard.metadata_);
    result.files_.push_back(std::move(shard.files_.front()));
  }
  return result;
}

const TensorView* Safetensors::Find(absl::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace pregate
