#include "tools/verify.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/model/model_config.h"
#include "core/model/pack_experts.h"
#include "core/storage/safetensors.h"
#include "tools/cli.h"
#include "tools/pack_model.h"
#include "tools/read_json.h"

namespace pregate {
namespace {

constexpr uint64_t kReadBytes = uint64_t{16} << 20;  // at a time, of whole records
constexpr size_t kPage = 4096;

absl::Status VerifyPack(const ExpertPack& pack, Verification& verification) {
  const uint64_t total = pack.num_records();
  const uint64_t num_experts = pack.header().num_experts;
  const uint64_t run = std::min(total, std::max<uint64_t>(1, kReadBytes / pack.stride_bytes()));
  const std::unique_ptr<std::byte, decltype(&std::free)> memory(
      static_cast<std::byte*>(std::aligned_alloc(kPage, run * pack.stride_bytes())), &std::free);
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(pack.path(), ": no memory for a record of ", pack.stride_bytes(), " bytes"));
  }
  std::vector<absl::Status> statuses(run);
  Progress progress("verifying experts", total);
  for (uint64_t record = 0; record < total; record += run) {
    const uint64_t count = std::min(run, total - record);
    pack.ReadRun(static_cast<uint32_t>(record / num_experts),
                 static_cast<uint32_t>(record % num_experts),
                 static_cast<uint32_t>(count),
                 absl::MakeSpan(memory.get(), count * pack.stride_bytes()),
                 absl::MakeSpan(statuses).first(count));
    for (uint64_t i = 0; i < count; ++i) {
      if (statuses[i].ok()) continue;
      ++verification.damaged_records;
      verification.damages.push_back(statuses[i]);
    }
    progress.Advance(count);
  }
  verification.num_records = total;
  verification.bytes += total * pack.stride_bytes();
  return absl::OkStatus();
}

absl::Status VerifyDense(const std::string& folder, Verification& verification) {
  const std::string path = absl::StrCat(folder, "/", kChecksumsName);
  PREGATE_ASSIGN_OR_RETURN(const nlohmann::json checksums, ReadJson(path));
  PREGATE_ASSIGN_OR_RETURN(const Safetensors tensors,
                           Safetensors::Open(absl::StrCat(folder, "/", kDenseName)));
  const auto damaged = [&](const std::string& name, const auto&... what) {
    ++verification.damaged_tensors;
    verification.damages.push_back(
        absl::DataLossError(absl::StrCat(folder, "/", kDenseName, ": tensor ", name, what...)));
  };
  for (const auto& [name, checksum] : checksums.items()) {
    if (tensors.Find(name) == nullptr) damaged(name, " is in ", kChecksumsName, " alone");
  }
  for (const auto& [name, tensor] : tensors.tensors()) {
    ++verification.num_tensors;
    verification.bytes += tensor.bytes.size();
    const auto expected = checksums.find(name);
    const std::string found = TensorChecksum(tensor);
    if (expected == checksums.end()) {
      damaged(name, " is not in ", kChecksumsName);
    } else if (*expected != found) {
      damaged(
          name, ": its checksum is \"", found, "\", by ", kChecksumsName, " ", expected->dump());
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Verification> Verify(const std::string& path, const PreadFunction& pread) {
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(path, ignored);
  PREGATE_ASSIGN_OR_RETURN(
      const ExpertPack pack,
      ExpertPack::Open(is_folder ? absl::StrCat(path, "/", kPackName) : path, pread));
  Verification verification;
  if (is_folder) {
    PREGATE_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(path));
    const absl::StatusOr<RecordLayout> layout = LayoutOfPack(pack.header(), config);
    if (!layout.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(pack.path(), ": ", layout.status().message()));
    }
    PREGATE_RETURN_IF_ERROR(VerifyDense(path, verification));
  }
  PREGATE_RETURN_IF_ERROR(VerifyPack(pack, verification));
  return verification;
}

}  // namespace pregate
