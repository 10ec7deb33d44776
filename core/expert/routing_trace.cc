#include "core/expert/routing_trace.h"

#include <deque>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/mutex.h"
#include "core/base/status_macros.h"
#include "core/storage/whole_file.h"

namespace pregate {
namespace {

constexpr char kMagic[] = "PGROUTES";
constexpr uint32_t kVersion = 1;
constexpr uint32_t kMostLayers = 4096;
constexpr uint32_t kMostExperts = 65536;
constexpr uint32_t kLongestText = 4096;             // bytes of a name or an id
constexpr uint64_t kMostBytes = uint64_t{4} << 30;  // of a file

void PutNumber(uint64_t number, size_t bytes, std::string& out) {
  for (size_t i = 0; i < bytes; ++i) out.push_back(static_cast<char>(number >> (8 * i)));
}

void PutText(absl::string_view text, std::string& out) {
  const absl::string_view kept = text.substr(0, kLongestText);
  PutNumber(kept.size(), 4, out);
  out.append(kept.begin(), kept.end());
}

size_t IdBytes(uint32_t num_experts) { return num_experts <= 256 ? 1 : 2; }

// Takes numbers and texts off the front, or says what is missing.
class Reader {
 public:
  explicit Reader(absl::string_view bytes) : bytes_(bytes) {}

  absl::StatusOr<uint64_t> Number(size_t size, absl::string_view what) {
    PREGATE_ASSIGN_OR_RETURN(const absl::string_view bytes, Bytes(size, what));
    uint64_t number = 0;
    for (size_t i = 0; i < size; ++i) number |= uint64_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
    return number;
  }

  // Between the two, both included.
  absl::StatusOr<uint32_t> Count(absl::string_view what, uint32_t least, uint32_t most) {
    const size_t offset = offset_;
    PREGATE_ASSIGN_OR_RETURN(const uint64_t count, Number(4, what));
    if (count >= least && count <= most) return static_cast<uint32_t>(count);
    return absl::InvalidArgumentError(
        absl::StrCat(what, " at offset ", offset, " is ", count, ", not ", least, " to ", most));
  }

  absl::StatusOr<std::string> Text(absl::string_view what) {
    PREGATE_ASSIGN_OR_RETURN(const uint32_t size, Count(what, 0, kLongestText));
    PREGATE_ASSIGN_OR_RETURN(const absl::string_view text, Bytes(size, what));
    return std::string(text);
  }

  absl::StatusOr<absl::string_view> Bytes(uint64_t size, absl::string_view what) {
    if (size > bytes_.size() - offset_) {
      return absl::InvalidArgumentError(absl::StrCat(what,
                                                     " at offset ",
                                                     offset_,
                                                     " takes ",
                                                     size,
                                                     " bytes, and ",
                                                     bytes_.size() - offset_,
                                                     " are left"));
    }
    const absl::string_view bytes = bytes_.substr(offset_, size);
    offset_ += size;
    return bytes;
  }

  size_t offset() const { return offset_; }
  bool at_end() const { return offset_ == bytes_.size(); }

 private:
  const absl::string_view bytes_;
  size_t offset_ = 0;
};

absl::StatusOr<RoutingTrace::Sequence> ReadSequence(const RoutingTrace& trace, Reader& reader) {
  RoutingTrace::Sequence sequence;
  PREGATE_ASSIGN_OR_RETURN(sequence.id, reader.Text("a sequence's id"));
  PREGATE_ASSIGN_OR_RETURN(const uint32_t num_tokens,
                           reader.Count("a sequence's number of tokens", 0, UINT32_MAX));
  PREGATE_ASSIGN_OR_RETURN(sequence.num_prompt_tokens,
                           reader.Count("a sequence's number of prompt tokens", 0, num_tokens));
  const size_t offset = reader.offset();
  const size_t id_bytes = IdBytes(trace.num_experts);
  const uint64_t num_ids = uint64_t{num_tokens} * trace.num_layers * trace.experts_per_token;
  PREGATE_ASSIGN_OR_RETURN(const absl::string_view bytes,
                           reader.Bytes(num_ids * id_bytes, "a sequence's experts"));
  sequence.expert_ids.resize(num_ids);
  for (size_t i = 0; i < num_ids; ++i) {
    uint32_t id = static_cast<uint8_t>(bytes[i * id_bytes]);
    if (id_bytes == 2) id |= uint32_t{static_cast<uint8_t>(bytes[i * 2 + 1])} << 8;
    if (id >= trace.num_experts) {
      return absl::InvalidArgumentError(absl::StrCat("expert ",
                                                     id,
                                                     " at offset ",
                                                     offset + i * id_bytes,
                                                     " is not one of ",
                                                     trace.num_experts));
    }
    sequence.expert_ids[i] = static_cast<uint16_t>(id);
  }
  return sequence;
}

}  // namespace

uint32_t RoutingTrace::num_tokens(const Sequence& sequence) const {
  return static_cast<uint32_t>(sequence.expert_ids.size() /
                               (size_t{num_layers} * experts_per_token));
}

absl::Span<const uint16_t> RoutingTrace::ExpertsOf(const Sequence& sequence,
                                                   uint32_t token,
                                                   uint32_t layer) const {
  return absl::MakeConstSpan(sequence.expert_ids)
      .subspan((size_t{token} * num_layers + layer) * experts_per_token, experts_per_token);
}

absl::Span<const uint16_t> RoutingTrace::ForcedExperts(uint64_t sequence,
                                                       uint32_t position,
                                                       uint32_t layer) const {
  const Sequence& recorded = sequences[sequence % sequences.size()];
  return ExpertsOf(recorded, position % num_tokens(recorded), layer);
}

std::string SerializeRoutingTrace(const RoutingTrace& trace) {
  std::string bytes(kMagic, sizeof(kMagic) - 1);
  PutNumber(kVersion, 4, bytes);
  PutNumber(trace.num_layers, 4, bytes);
  PutNumber(trace.num_experts, 4, bytes);
  PutNumber(trace.experts_per_token, 4, bytes);
  PutNumber(trace.sequences.size(), 4, bytes);
  PutText(trace.model, bytes);
  const size_t id_bytes = IdBytes(trace.num_experts);
  for (const RoutingTrace::Sequence& sequence : trace.sequences) {
    PutText(sequence.id, bytes);
    PutNumber(trace.num_tokens(sequence), 4, bytes);
    PutNumber(sequence.num_prompt_tokens, 4, bytes);
    for (const uint16_t id : sequence.expert_ids) PutNumber(id, id_bytes, bytes);
  }
  PutNumber(Checksum(bytes), 8, bytes);
  return bytes;
}

absl::StatusOr<RoutingTrace> ParseRoutingTrace(absl::string_view bytes) {
  constexpr size_t kChecksumBytes = 8;
  if (bytes.substr(0, sizeof(kMagic) - 1) != kMagic || bytes.size() < kChecksumBytes) {
    return absl::InvalidArgumentError("does not begin with PGROUTES: it is no routing trace");
  }
  const absl::string_view content = bytes.substr(0, bytes.size() - kChecksumBytes);
  Reader reader(content);
  PREGATE_RETURN_IF_ERROR(reader.Bytes(sizeof(kMagic) - 1, "the magic").status());
  PREGATE_RETURN_IF_ERROR(reader.Count("the version", kVersion, kVersion).status());
  PREGATE_ASSIGN_OR_RETURN(
      const uint64_t checksum,
      Reader(bytes.substr(content.size())).Number(kChecksumBytes, "the checksum"));
  if (checksum != Checksum(content)) {
    return absl::InvalidArgumentError("its checksum is wrong: the routing trace is damaged or cut");
  }
  RoutingTrace trace;
  PREGATE_ASSIGN_OR_RETURN(trace.num_layers, reader.Count("num_layers", 1, kMostLayers));
  PREGATE_ASSIGN_OR_RETURN(trace.num_experts, reader.Count("num_experts", 1, kMostExperts));
  PREGATE_ASSIGN_OR_RETURN(trace.experts_per_token,
                           reader.Count("experts_per_token", 1, trace.num_experts));
  PREGATE_ASSIGN_OR_RETURN(const uint32_t num_sequences,
                           reader.Count("the number of sequences", 0, UINT32_MAX));
  PREGATE_ASSIGN_OR_RETURN(trace.model, reader.Text("the model's name"));
  for (uint32_t i = 0; i < num_sequences; ++i) {
    PREGATE_ASSIGN_OR_RETURN(RoutingTrace::Sequence sequence, ReadSequence(trace, reader));
    trace.sequences.push_back(std::move(sequence));
  }
  if (reader.at_end()) return trace;
  return absl::InvalidArgumentError(
      absl::StrCat("has ", content.size() - reader.offset(), " bytes behind its last sequence"));
}

absl::StatusOr<RoutingTrace> ReadRoutingTrace(const std::string& path) {
  PREGATE_ASSIGN_OR_RETURN(const std::string bytes, ReadWholeFile(path, kMostBytes));
  absl::StatusOr<RoutingTrace> trace = ParseRoutingTrace(bytes);
  if (trace.ok()) return trace;
  return absl::Status(trace.status().code(), absl::StrCat(path, ": ", trace.status().message()));
}

absl::Status WriteRoutingTrace(const std::string& path, const RoutingTrace& trace) {
  return WriteWholeFile(path, SerializeRoutingTrace(trace));
}

class RoutingRecorder::Sequences {
 public:
  Sequences(RoutingTrace shape, uint64_t max_bytes)
      : trace_(std::move(shape)), max_bytes_(max_bytes) {}

  void Record(uint64_t sequence, bool is_prompt, absl::Span<const uint32_t> expert_ids) {
    PREGATE_CHECK(expert_ids.size() == size_t{trace_.num_layers} * trace_.experts_per_token);
    MutexLock lock(mutex_);
    RoutingTrace::Sequence& recorded = recorded_[sequence];
    if (recorded.expert_ids.empty()) {
      recorded.id = absl::StrCat(sequence);
      order_.push_back(sequence);
    } else {
      bytes_ -= BytesOf(recorded);
    }
    // Of the first tokens only: a prompt that came after an answer is one with it.
    const uint32_t num_tokens = trace_.num_tokens(recorded);
    if (is_prompt && recorded.num_prompt_tokens == num_tokens) ++recorded.num_prompt_tokens;
    for (const uint32_t id : expert_ids) recorded.expert_ids.push_back(static_cast<uint16_t>(id));
    bytes_ += BytesOf(recorded);
    Trim();
  }

  void Clear() {
    MutexLock lock(mutex_);
    recorded_.clear();
    order_.clear();
    bytes_ = 0;
  }

  RoutingTrace Read() const {
    MutexLock lock(mutex_);
    RoutingTrace trace = trace_;
    for (const uint64_t sequence : order_) trace.sequences.push_back(recorded_.at(sequence));
    return trace;
  }

 private:
  // About what a sequence takes beside its experts: its id, and its places in the map and the
  // queue.
  static constexpr uint64_t kSequenceBytes = 192;

  static uint64_t BytesOf(const RoutingTrace::Sequence& sequence) {
    return kSequenceBytes + sequence.expert_ids.capacity() * sizeof(uint16_t);
  }

  // Drops the oldest until the rest fits.
  void Trim() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (bytes_ > max_bytes_) {
      const auto oldest = recorded_.find(order_.front());
      bytes_ -= BytesOf(oldest->second);
      recorded_.erase(oldest);
      order_.pop_front();
    }
  }

  const RoutingTrace trace_;  // without sequences
  const uint64_t max_bytes_;
  mutable Mutex mutex_;
  std::map<uint64_t, RoutingTrace::Sequence> recorded_ ABSL_GUARDED_BY(mutex_);
  std::deque<uint64_t> order_ ABSL_GUARDED_BY(mutex_);  // oldest first
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

RoutingRecorder::RoutingRecorder(std::string model,
                                 uint32_t num_layers,
                                 uint32_t num_experts,
                                 uint32_t experts_per_token,
                                 uint64_t max_bytes)
    : sequences_(std::make_unique<Sequences>(RoutingTrace{.model = std::move(model),
                                                          .num_layers = num_layers,
                                                          .num_experts = num_experts,
                                                          .experts_per_token = experts_per_token,
                                                          .sequences = {}},
                                             max_bytes)) {}
RoutingRecorder::~RoutingRecorder() = default;

void RoutingRecorder::Record(uint64_t sequence,
                             bool is_prompt,
                             absl::Span<const uint32_t> expert_ids) {
  sequences_->Record(sequence, is_prompt, expert_ids);
}

RoutingTrace RoutingRecorder::Read() const { return sequences_->Read(); }
void RoutingRecorder::Clear() { sequences_->Clear(); }

}  // namespace pregate
