// Packs and the host tier against models: what was written comes back, whatever is damaged is found
// and named, and what is read from host memory is always the expert that was asked for.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/device/cpu_backend.h"
#include "core/expert/host_tier.h"
#include "core/storage/expert_pack.h"
#include "gtest/gtest.h"
#include "rapidcheck.h"
#include "rapidcheck/gtest.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_pack.h"

namespace pregate {
namespace {

ExpertPackHeader AnyHeader() {
  ExpertPackHeader header;
  header.num_layers = *rc::gen::inRange<uint32_t>(1, 4);
  header.num_experts = *rc::gen::inRange<uint32_t>(1, 5);
  // Around the lengths where a record needs one more page.
  const uint64_t pages = *rc::gen::inRange<uint64_t>(0, 4);
  header.record_bytes = std::max<uint64_t>(1, pages * 4096 + *rc::gen::inRange<uint64_t>(0, 80)) -
                        (pages > 0 ? 40 : 0);
  const auto text = rc::gen::container<std::string>(rc::gen::inRange<char>(1, 127));
  header.properties =
      *rc::gen::resize(20, rc::gen::container<std::map<std::string, std::string>>(text, text));
  return header;
}

std::vector<ExpertId> Ids(const ExpertPackHeader& header) {
  std::vector<ExpertId> ids;
  for (uint32_t flat = 0; flat < header.num_layers * header.num_experts; ++flat) {
    ids.push_back(ExpertId::FromFlat(flat, header.num_experts));
  }
  return ids;
}

// The content of an expert of `pack`.
absl::StatusOr<std::vector<std::byte>> Read(const ExpertPack& pack, ExpertId id) {
  const std::unique_ptr<std::byte, decltype(&std::free)> stride(
      static_cast<std::byte*>(std::aligned_alloc(4096, pack.stride_bytes())), &std::free);
  const absl::Status status =
      pack.Read(id.layer, id.expert, absl::MakeSpan(stride.get(), pack.stride_bytes()));
  if (!status.ok()) return status;
  return std::vector<std::byte>(stride.get(), stride.get() + pack.header().record_bytes);
}

RC_GTEST_PROP(ExpertPackProperty, GivesBackWhatWasWritten, ()) {
  const TempFolder folder;
  const ExpertPackHeader header = AnyHeader();
  const auto pack = ExpertPack::Open(WriteTestPack(folder / "p", header));
  RC_ASSERT(pack.ok());
  RC_ASSERT(pack->header() == header);
  for (const ExpertId id : Ids(header)) {
    RC_ASSERT(pack->offset_of(id.layer, id.expert) % 4096 == 0u);
    RC_ASSERT(Read(*pack, id).value() == TestRecord(header.record_bytes, id.layer, id.expert));
  }
}

RC_GTEST_PROP(ExpertPackProperty, FindsAnyFlippedBitAndNamesIt, ()) {
  const TempFolder folder;
  const ExpertPackHeader header = AnyHeader();
  const std::string path = WriteTestPack(folder / "p", header);
  const uint64_t first = ExpertPack::Open(path)->offset_of(0, 0);
  const auto offset = *rc::gen::inRange<uint64_t>(0, std::filesystem::file_size(path));
  FlipBit(path, offset, *rc::gen::inRange(0, 8));
  const auto pack = ExpertPack::Open(path);
  RC_ASSERT(pack.ok() == (offset >= first));
  if (!pack.ok()) {
    RC_ASSERT(absl::StrContains(pack.status().message(), ": header: "));
    return;
  }
  const uint64_t damaged = (offset - first) / pack->stride_bytes();
  for (const ExpertId id : Ids(header)) {
    const absl::Status status = Read(*pack, id).status();
    RC_ASSERT(status.ok() == (id.Flat(header.num_experts) != damaged));
    RC_ASSERT(status.ok() ||
              absl::StartsWith(status.message(), absl::StrCat("expert ", ToString(id), ": ")));
  }
}

RC_GTEST_PROP(ExpertPackProperty, IsTheSameWhereverItsWriterWasCut, ()) {
  const TempFolder folder;
  const ExpertPackHeader header = AnyHeader();
  const std::string expected = ReadFile(WriteTestPack(folder / "expected", header));
  const auto cuts =
      *rc::gen::container<std::vector<size_t>>(3, rc::gen::inRange<size_t>(0, expected.size() + 1));
  for (const size_t cut : cuts) folder.Write("p.partial", expected.substr(0, cut));
  RC_ASSERT(ReadFile(WriteTestPack(folder / "p", header)) == expected);
}

// What a HostTier with `num_slots` should hold, and answer.
class TierModel {
 public:
  TierModel(uint64_t num_slots, bool holds_all) : num_slots_(num_slots), holds_all_(holds_all) {}

  bool Holds(uint32_t flat) const {
    return std::find(recent_.begin(), recent_.end(), flat) != recent_.end();
  }
  // Is there a place for what is not held?
  bool HasPlace() const {
    return recent_.size() < num_slots_ ||
           std::any_of(recent_.begin(), recent_.end(), [this](uint32_t flat) {
             return pins_.count(flat) == 0;
           });
  }
  // Fetches; false when that fails for want of a sound record.
  bool Fetch(uint32_t flat, bool is_damaged) {
    if (Holds(flat)) {
      recent_.remove(flat);
    } else {
      if (recent_.size() == num_slots_) {
        recent_.erase(std::find_if(recent_.begin(), recent_.end(), [this](uint32_t candidate) {
          return pins_.count(candidate) == 0;
        }));
      }
      if (is_damaged) return false;
    }
    recent_.push_back(flat);
    pins_.insert(flat);
    return true;
  }
  void Unpin(uint32_t flat) { pins_.erase(pins_.find(flat)); }
  void Fill(uint32_t flat) {
    if (holds_all_) recent_.push_back(flat);
  }

 private:
  const uint64_t num_slots_;
  const bool holds_all_;
  std::list<uint32_t> recent_;  // held, the one fetched last at the end
  std::multiset<uint32_t> pins_;
};

struct Held {
  ExpertId id;
  HostRecord record;
};

void CheckBytes(const std::vector<Held>& held, uint64_t record_bytes) {
  for (const Held& one : held) {
    RC_ASSERT(one.record.bytes() ==
              absl::MakeConstSpan(TestRecord(record_bytes, one.id.layer, one.id.expert)));
  }
}

absl::StatusOr<HostRecord> Fetch(HostTier& tier, ExpertId id, bool is_urgent) {
  // Shared: who answers may still be at it when the answer is there.
  const auto answer = std::make_shared<std::promise<absl::StatusOr<HostRecord>>>();
  tier.Fetch(id, is_urgent, [answer](auto record) { answer->set_value(std::move(record)); });
  return answer->get_future().get();
}

RC_GTEST_PROP(HostTierProperty, AgreesWithAModelWhateverIsFetchedAndDamaged, ()) {
  const TempFolder folder;
  const ExpertPackHeader header = {.num_layers = 2, .num_experts = 4, .record_bytes = 3000};
  const std::string path = WriteTestPack(folder / "p", header);
  CpuBackend backend;
  const Logger logger(LogLevel::kError);
  const auto num_slots = *rc::gen::inRange<uint64_t>(2, 10);
  auto created = HostTier::Create(*ExpertPack::Open(path),
                                  backend,
                                  {.budget_bytes = num_slots * 4096,
                                   .piece_bytes = *rc::gen::inRange<uint64_t>(1, 40000),
                                   .num_readers = *rc::gen::inRange<uint32_t>(1, 4),
                                   .num_attempts = *rc::gen::inRange<uint32_t>(1, 4)},
                                  logger);
  RC_ASSERT(created.ok());
  HostTier& tier = **created;
  TierModel model(num_slots, tier.holds_all());
  for (uint32_t flat = 0; flat < 8; ++flat) model.Fill(flat);
  std::vector<Held> held;
  std::set<uint32_t> damaged;
  const auto num_actions = *rc::gen::inRange(1, 80);
  for (int i = 0; i < num_actions; ++i) {
    const auto action = *rc::gen::inRange(0, 10);
    const auto flat = *rc::gen::inRange<uint32_t>(0, 8);
    const ExpertId id = ExpertId::FromFlat(flat, 4);
    if (action == 0) {  // a bit of it breaks, or heals
      FlipBit(path, 4096 + flat * 4096 + 7, 2);
      if (damaged.erase(flat) == 0) damaged.insert(flat);
    } else if (action < 4 && !held.empty()) {
      const size_t index = flat % held.size();
      model.Unpin(held[index].id.Flat(4));
      std::swap(held[index], held.back());
      held.pop_back();
    } else if (model.Holds(flat) || model.HasPlace()) {
      const bool was_there = model.Holds(flat);
      absl::StatusOr<HostRecord> record = Fetch(tier, id, *rc::gen::arbitrary<bool>());
      RC_ASSERT(record.ok() == model.Fetch(flat, damaged.count(flat) > 0));
      if (record.ok()) {
        RC_ASSERT(record->from_disk() == !was_there);
        held.push_back({.id = id, .record = *std::move(record)});
      } else {
        RC_ASSERT(absl::StartsWith(record.status().message(),
                                   absl::StrCat("expert ", ToString(id), ": its checksum")));
      }
    }
    CheckBytes(held, header.record_bytes);
  }
}

}  // namespace
}  // namespace pregate
