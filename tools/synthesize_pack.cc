#include "tools/synthesize_pack.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "core/base/status_macros.h"
#include "core/kernel/codec_format.h"
#include "core/model/model_config.h"
#include "core/model/pack_experts.h"
#include "core/storage/expert_pack.h"
#include "tools/cli.h"
#include "tools/model_shape.h"
#include "tools/normal_numbers.h"

namespace pregate {
namespace {

constexpr size_t kDrawn = 4;  // experts whose rows all others are made of; a power of two

// Mixes the rows of drawn experts: row i of a matrix is row i + shift (mod out) of one of them.
class RowMixer {
 public:
  RowMixer(const RecordLayout& layout,
           absl::Span<const std::vector<std::byte>> drawn,
           absl::Span<std::byte> record)
      : codec_(layout.codec), drawn_(drawn), record_(record) {}

  void Mix(const EncodedMatrix& matrix, NormalNumbers& numbers) const {
    const uint64_t shift = numbers.Next() % matrix.out;
    const uint64_t group_bytes = (matrix.in + kInt4Group - 1) / kInt4Group * sizeof(uint16_t);
    for (uint64_t row = 0; row < matrix.out; ++row) {
      const uint64_t from = (row + shift) % matrix.out;
      const std::byte* const record = drawn_[numbers.Next() % kDrawn].data();
      const auto copy = [&](uint64_t part, uint64_t bytes) {
        std::memcpy(&record_[part + row * bytes], record + part + from * bytes, bytes);
      };
      copy(matrix.values, matrix.row_bytes);
      if (codec_ == Codec::kSparse) copy(matrix.indices, (matrix.in + 7) / 8);
      if (codec_ == Codec::kSparse || codec_ == Codec::kInt8) copy(matrix.scales, sizeof(float));
      if (codec_ == Codec::kInt4) copy(matrix.scales, group_bytes);
      if (codec_ == Codec::kInt4) copy(matrix.zeros, group_bytes);
    }
  }

 private:
  const Codec codec_;
  const absl::Span<const std::vector<std::byte>> drawn_;
  const absl::Span<std::byte> record_;
};

std::vector<std::byte> DrawExpert(const RecordLayout& layout, NormalNumbers numbers) {
  std::vector<std::byte> record(layout.bytes);
  const double inner_power = InnerPower(layout.gate.out > 0);
  std::vector<float> weights(size_t{layout.up.out} * layout.up.in);  // as many in each matrix
  for (const EncodedMatrix* matrix : {&layout.up, &layout.gate, &layout.down}) {
    if (matrix->out == 0) continue;
    const double input_power = matrix == &layout.down ? inner_power : 1;
    numbers.Fill(absl::MakeSpan(weights), 0, 1 / std::sqrt(matrix->in * input_power));
    EncodeMatrix(layout, *matrix, weights.data(), absl::MakeSpan(record));
  }
  return record;
}

}  // namespace

absl::Status SynthesizePack(const std::string& folder, Codec codec, Dtype dtype, uint64_t seed) {
  PREGATE_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(folder));
  PREGATE_ASSIGN_OR_RETURN(
      const ExpertPackHeader header,
      PackHeaderOf(config, codec, dtype, absl::StrCat("synthesized, seed ", seed)));
  PREGATE_ASSIGN_OR_RETURN(const RecordLayout layout, LayoutOfPack(header, config));
  std::vector<std::vector<std::byte>> drawn;
  for (size_t i = 0; i < kDrawn; ++i) {
    drawn.push_back(DrawExpert(layout, NormalNumbers(seed, absl::StrCat("expert ", i))));
  }

  PREGATE_ASSIGN_OR_RETURN(const std::unique_ptr<ExpertPackWriter> writer,
                           ExpertPackWriter::Create(absl::StrCat(folder, "/", kPackName), header));
  const uint64_t total = uint64_t{header.num_layers} * header.num_experts;
  Progress progress("writing experts", total);
  NormalNumbers order(seed, "experts");
  std::vector<std::byte> record(layout.bytes);
  const RowMixer mixer(layout, drawn, absl::MakeSpan(record));
  for (uint64_t i = 0; i < total; ++i) {
    for (const EncodedMatrix* matrix : {&layout.up, &layout.gate, &layout.down}) {
      if (matrix->out > 0) mixer.Mix(*matrix, order);
    }
    PREGATE_RETURN_IF_ERROR(writer->Append(record));
    progress.Advance(1);
  }
  return writer->Finish();
}

}  // namespace pregate
