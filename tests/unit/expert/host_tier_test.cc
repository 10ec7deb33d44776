#include "core/expert/host_tier.h"

#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/mutex.h"
#include "core/base/thread.h"
#include "core/device/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/recorded_stats.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_pack.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kRecordBytes = 5000;
constexpr uint64_t kStride = 8192;
const ExpertPackHeader kHeader = {.num_layers = 2, .num_experts = 4, .record_bytes = kRecordBytes};

// The host's memory, of which a limited part can be pinned.
class LimitedBackend final : public Backend {
 public:
  LimitedBackend(uint64_t pinned_bytes, uint64_t pageable_bytes)
      : pinned_left_(pinned_bytes), pageable_left_(pageable_bytes) {}

  absl::StatusOr<Buffer> Allocate(MemoryKind kind, size_t bytes) override {
    uint64_t& left = kind == MemoryKind::kPinned ? pinned_left_ : pageable_left_;
    if (bytes > left) return absl::ResourceExhaustedError(absl::StrCat("no ", bytes, " bytes"));
    left -= bytes;
    sizes_.push_back(bytes);
    return host_.Allocate(kind, bytes);
  }
  absl::StatusOr<Buffer> Reserve(size_t bytes) override { return host_.Reserve(bytes); }
  absl::Status Commit(const Buffer& reserved, size_t offset, size_t bytes) override {
    return host_.Commit(reserved, offset, bytes);
  }
  absl::Status Decommit(const Buffer& reserved, size_t offset, size_t bytes) override {
    return host_.Decommit(reserved, offset, bytes);
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const std::string& name) override {
    return host_.CreateStream(name);
  }
  bool is_host() const override { return true; }
  MemoryInfo memory() const override { return host_.memory(); }

  const std::vector<size_t>& sizes() const { return sizes_; }  // of what was allocated

 private:
  CpuBackend host_;
  uint64_t pinned_left_;
  uint64_t pageable_left_;
  std::vector<size_t> sizes_;
};

// An answer to a Fetch that the test can wait for.
class Answer {
 public:
  RecordSource::Done done() {
    return [state = state_](absl::StatusOr<HostRecord> record) {
      MutexLock lock(state->mutex);
      state->record.push_back(std::move(record));
      state->changed.NotifyAll();
    };
  }
  bool is_there() const {
    MutexLock lock(state_->mutex);
    return !state_->record.empty();
  }
  absl::StatusOr<HostRecord>& Await() {
    MutexLock lock(state_->mutex);
    while (state_->record.empty()) state_->changed.Wait(state_->mutex);
    EXPECT_EQ(state_->record.size(), 1u) << "answered more than once";
    return state_->record.front();
  }

 private:
  struct State {
    Mutex mutex;
    CondVar changed;
    std::vector<absl::StatusOr<HostRecord>> record;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

absl::StatusOr<HostRecord> FetchNow(RecordSource& source, ExpertId id, bool is_urgent = true) {
  Answer answer;
  source.Fetch(id, is_urgent, answer.done());
  return std::move(answer.Await());
}

// Are these the bytes of the test's expert?
bool Holds(const HostRecord& record, ExpertId id, uint64_t record_bytes = kRecordBytes) {
  return record.bytes() == absl::MakeConstSpan(TestRecord(record_bytes, id.layer, id.expert));
}

class HostTierTest : public ::testing::Test {
 protected:
  HostTierTest()
      : path_(WriteTestPack(folder_ / "experts.pack", kHeader)),
        logger_(LogLevel::kInfo, LogFormat::kText, [this](const std::string& line) {
          log_.push_back(line);
        }) {}

  ExpertPack Open() {
    absl::StatusOr<ExpertPack> pack = ExpertPack::Open(path_, disk_.pread());
    EXPECT_TRUE(pack.ok()) << pack.status();
    disk_.ForgetOffsets();
    return *std::move(pack);
  }
  std::unique_ptr<HostTier> Create(const HostTier::Options& options) {
    absl::StatusOr<std::unique_ptr<HostTier>> tier =
        HostTier::Create(Open(), backend_, options, logger_);
    EXPECT_TRUE(tier.ok()) << tier.status();
    return *std::move(tier);
  }
  // With room for `num_records`, and one reader, so that reads have an order.
  std::unique_ptr<HostTier> CreateCache(uint64_t num_records) {
    return Create({.budget_bytes = num_records * kStride + 17, .num_readers = 1});
  }
  static uint64_t Offset(ExpertId id) { return 4096 + id.Flat(4) * kStride; }
  double Stat(const HostTier& tier, const std::string& name) {
    RecordedStats stats;
    tier.VisitStats(stats);
    EXPECT_EQ(stats.violation(), "");
    return stats.value(name);
  }
  double Reads(const HostTier& tier, const std::string& result) {
    return Stat(tier, absl::StrCat("expert_disk_reads_total{result=\"", result, "\"}"));
  }

  const TempFolder folder_;
  const std::string path_;
  FaultyDisk disk_;
  CpuBackend backend_;
  std::vector<std::string> log_;
  const Logger logger_;
};

TEST_F(HostTierTest, ReadsAllAtTheStartWhereAllFit) {
  std::vector<std::pair<uint64_t, uint64_t>> progress;
  const auto tier = Create({.on_progress = [&progress](uint64_t done, uint64_t total) {
    progress.emplace_back(done, total);
  }});
  EXPECT_TRUE(tier->holds_all());
  EXPECT_EQ(tier->arena_bytes(), 8 * kStride);
  EXPECT_EQ(tier->header(), kHeader);
  EXPECT_THAT(progress, ElementsAre(std::make_pair(8 * kStride, 8 * kStride)));
  EXPECT_THAT(disk_.offsets(), ElementsAre(Offset({0, 0}))) << "one sequential read";
  std::filesystem::resize_file(path_, 0);  // the file is not needed any more
  for (uint32_t flat = 0; flat < 8; ++flat) {
    const ExpertId id = ExpertId::FromFlat(flat, 4);
    Answer answer;
    tier->Fetch(id, /*is_urgent=*/false, answer.done());
    ASSERT_TRUE(answer.is_there()) << "on the calling thread";
    ASSERT_TRUE(answer.Await().ok()) << answer.Await().status();
    EXPECT_TRUE(Holds(*answer.Await(), id));
    EXPECT_FALSE(answer.Await()->from_disk());
  }
  EXPECT_EQ(Reads(*tier, "ok"), 8);
  EXPECT_EQ(Stat(*tier, "expert_host_bytes{kind=\"resident\"}"), 8 * kStride);
  EXPECT_EQ(Stat(*tier, "expert_host_bytes{kind=\"capacity\"}"), 8 * kStride);
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(HostTierTest, TakesItsMemoryInPieces) {
  LimitedBackend backend(UINT64_MAX, 0);
  uint64_t last = 0;
  std::vector<uint64_t> steps;
  const auto tier = HostTier::Create(Open(),
                                     backend,
                                     {.piece_bytes = 3 * kStride + 100,
                                      .on_progress =
                                          [&last](uint64_t done, uint64_t) {
                                            EXPECT_GT(done, last);
                                            last = done;
                                          }},
                                     logger_);
  ASSERT_TRUE(tier.ok()) << tier.status();
  EXPECT_THAT(backend.sizes(), ElementsAre(3 * kStride, 3 * kStride, 2 * kStride));
  EXPECT_EQ(last, 8 * kStride);
  EXPECT_THAT(disk_.offsets(), SizeIs(3));
  for (uint32_t flat = 0; flat < 8; ++flat) {
    const ExpertId id = ExpertId::FromFlat(flat, 4);
    const auto record = FetchNow(**tier, id);
    ASSERT_TRUE(record.ok());
    EXPECT_TRUE(Holds(*record, id));
  }
}

TEST_F(HostTierTest, GoesOnInPageableMemoryAndSaysHowToAllowMore) {
  LimitedBackend backend(3 * kStride, UINT64_MAX);
  const auto tier = HostTier::Create(Open(), backend, {.piece_bytes = 2 * kStride}, logger_);
  ASSERT_TRUE(tier.ok()) << tier.status();
  EXPECT_THAT(
      log_,
      ElementsAre(AllOf(
          HasSubstr("WARNING"), HasSubstr("raise `ulimit -l`"), HasSubstr("no 16384 bytes"))));
  EXPECT_TRUE(Holds(*FetchNow(**tier, {1, 3}), {1, 3}));
}

TEST_F(HostTierTest, RefusesWhatDoesNotFit) {
  LimitedBackend backend(kStride, 3 * kStride);
  EXPECT_EQ(HostTier::Create(Open(), backend, {.piece_bytes = 2 * kStride}, logger_).status(),
            absl::ResourceExhaustedError("no 16384 bytes"));
  EXPECT_EQ(HostTier::Create(Open(), backend_, {.budget_bytes = 2 * kStride - 1}, logger_).status(),
            absl::ResourceExhaustedError(
                absl::StrCat("a host memory budget of 16.0 KiB holds 1 experts of ",
                             path_,
                             ", at least 2 (16.0 KiB) are needed")));
}

TEST_F(HostTierTest, AnExpertThatCannotBeReadAtTheStartIsTriedAgain) {
  disk_.Add(FaultyDisk::Fault::kFlip, Offset({1, 2}) + 40, 1000);
  const auto tier = Create({.num_attempts = 2});
  EXPECT_THAT(
      log_,
      ElementsAre(AllOf(
          HasSubstr("WARNING"), HasSubstr("experts=1"), HasSubstr("expert 1/2: its checksum is"))));
  EXPECT_TRUE(Holds(*FetchNow(*tier, {1, 1}), {1, 1}));
  EXPECT_EQ(FetchNow(*tier, {1, 2}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Reads(*tier, "ok"), 7);
  EXPECT_EQ(Reads(*tier, "failed"), 2);
  disk_.Heal();
  const auto record = FetchNow(*tier, {1, 2});
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_TRUE(Holds(*record, {1, 2}));
  EXPECT_TRUE(record->from_disk());
  EXPECT_EQ(Reads(*tier, "ok"), 8);
}

TEST_F(HostTierTest, ReadsWhatIsAskedForAndKeepsWhatWasFetchedLast) {
  const auto tier = CreateCache(3);
  EXPECT_FALSE(tier->holds_all());
  EXPECT_EQ(tier->arena_bytes(), 3 * kStride);
  EXPECT_THAT(disk_.offsets(), IsEmpty());
  for (const uint32_t expert : {0u, 1u, 2u}) {
    const auto record = FetchNow(*tier, {0, expert});
    ASSERT_TRUE(record.ok()) << record.status();
    EXPECT_TRUE(record->from_disk());
    EXPECT_TRUE(Holds(*record, {0, expert}));
  }
  EXPECT_FALSE(FetchNow(*tier, {0, 0})->from_disk());
  EXPECT_TRUE(FetchNow(*tier, {0, 3})->from_disk()) << "takes the place of 0/1";
  EXPECT_FALSE(FetchNow(*tier, {0, 0})->from_disk());
  EXPECT_FALSE(FetchNow(*tier, {0, 2})->from_disk());
  EXPECT_TRUE(FetchNow(*tier, {0, 1})->from_disk()) << "takes the place of 0/3";
  EXPECT_FALSE(FetchNow(*tier, {0, 0})->from_disk());
  EXPECT_EQ(Reads(*tier, "ok"), 5);
  EXPECT_EQ(Stat(*tier, "expert_host_bytes{kind=\"resident\"}"), 3 * kStride);
}

TEST_F(HostTierTest, NeverTakesThePlaceOfWhatIsInUse) {
  const auto tier = CreateCache(2);
  const auto oldest = FetchNow(*tier, {0, 0});
  ASSERT_TRUE(oldest.ok());
  for (uint32_t flat = 1; flat < 8; ++flat) {
    const ExpertId id = ExpertId::FromFlat(flat, 4);
    EXPECT_TRUE(Holds(*FetchNow(*tier, id), id));
    EXPECT_TRUE(Holds(*oldest, {0, 0}));
  }
  EXPECT_FALSE(FetchNow(*tier, {0, 0})->from_disk());
}

TEST_F(HostTierTest, WaitsForAPlaceWhileAllAreInUse) {
  const auto tier = CreateCache(2);
  // Often, as the reader may see the place before it has begun to wait for one.
  for (int round = 0; round < 100; ++round) {
    auto first = FetchNow(*tier, {0, 0});
    auto second = FetchNow(*tier, {0, 1});
    auto again = FetchNow(*tier, {0, 1});
    Answer waiting;
    tier->Fetch({0, 2}, /*is_urgent=*/true, waiting.done());
    second = absl::CancelledError();
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(Holds(*first, {0, 0}) && Holds(*again, {0, 1}));
    ASSERT_FALSE(waiting.is_there()) << "0/1 was in use twice";
    again = absl::CancelledError();
    ASSERT_TRUE(waiting.Await().ok());
    ASSERT_TRUE(Holds(*waiting.Await(), {0, 2}));
    ASSERT_TRUE(Holds(*first, {0, 0}));
  }
}

TEST_F(HostTierTest, WaitersOfOneExpertShareTheRead) {
  const auto tier = CreateCache(2);
  disk_.Hold();
  std::vector<Answer> answers(4);
  tier->Fetch({1, 0}, /*is_urgent=*/false, answers[0].done());
  tier->Fetch({1, 0}, /*is_urgent=*/true, answers[1].done());
  disk_.AwaitHeld(1);
  tier->Fetch({1, 0}, /*is_urgent=*/false, answers[2].done());
  tier->Fetch({1, 0}, /*is_urgent=*/true, answers[3].done());
  disk_.Release();
  for (Answer& answer : answers) {
    ASSERT_TRUE(answer.Await().ok());
    EXPECT_TRUE(Holds(*answer.Await(), {1, 0}));
    EXPECT_TRUE(answer.Await()->from_disk());
  }
  EXPECT_THAT(disk_.offsets(), ElementsAre(Offset({1, 0})));
}

TEST_F(HostTierTest, ReadsWhatIsUrgentFirst) {
  const auto tier = CreateCache(7);
  disk_.Hold();
  std::vector<Answer> answers(7);
  tier->Fetch({0, 0}, /*is_urgent=*/false, answers[0].done());
  disk_.AwaitHeld(1);
  tier->Fetch({0, 1}, /*is_urgent=*/false, answers[1].done());
  tier->Fetch({0, 2}, /*is_urgent=*/false, answers[2].done());
  tier->Fetch({0, 3}, /*is_urgent=*/true, answers[3].done());
  tier->Fetch({1, 0}, /*is_urgent=*/true, answers[4].done());
  tier->Fetch({0, 2}, /*is_urgent=*/true, answers[5].done());   // more urgent than it was
  tier->Fetch({0, 3}, /*is_urgent=*/false, answers[6].done());  // no less
  disk_.Release();
  for (Answer& answer : answers) EXPECT_TRUE(answer.Await().ok());
  EXPECT_THAT(
      disk_.offsets(),
      ElementsAre(Offset({0, 0}), Offset({0, 3}), Offset({1, 0}), Offset({0, 2}), Offset({0, 1})));
}

TEST_F(HostTierTest, TriesAgainWhatFails) {
  const auto tier = CreateCache(2);
  disk_.Add(FaultyDisk::Fault::kError, Offset({0, 1}), 1);
  disk_.Add(FaultyDisk::Fault::kEnd, Offset({0, 1}) + 3, 1);
  const auto record = FetchNow(*tier, {0, 1});
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_TRUE(Holds(*record, {0, 1}));
  EXPECT_EQ(Reads(*tier, "retried"), 1);
  EXPECT_EQ(Reads(*tier, "ok"), 0);
  EXPECT_EQ(Reads(*tier, "failed"), 0);
}

TEST_F(HostTierTest, FailsThoseWhoNeedWhatTheDiskCannotGiveAndNobodyElse) {
  const auto tier = CreateCache(2);
  const struct {
    FaultyDisk::Fault fault;
    uint64_t at;
    const char* reason;
  } kFaults[] = {{FaultyDisk::Fault::kError, 0, "cannot read 8192 bytes at 0x3000 of "},
                 {FaultyDisk::Fault::kEnd, 3, "read 3 of 8192 bytes at 0x3000 of "},
                 {FaultyDisk::Fault::kFlip, 4000, "its checksum is "}};
  for (const auto& fault : kFaults) {
    disk_.Add(fault.fault, Offset({0, 1}) + fault.at, 1000);
    disk_.Hold();
    std::vector<Answer> answers(3);
    tier->Fetch({0, 1}, /*is_urgent=*/true, answers[0].done());
    disk_.AwaitHeld(1);
    tier->Fetch({0, 1}, /*is_urgent=*/false, answers[1].done());
    tier->Fetch({0, 2}, /*is_urgent=*/false, answers[2].done());
    disk_.Release();
    for (Answer* answer : {&answers[0], &answers[1]}) {
      const absl::Status status = answer->Await().status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr("expert 0/1: "), HasSubstr(fault.reason), HasSubstr(path_)));
    }
    ASSERT_TRUE(answers[2].Await().ok());
    EXPECT_TRUE(Holds(*answers[2].Await(), {0, 2}));
    disk_.Heal();
  }
  EXPECT_EQ(Reads(*tier, "failed"), 3);
  EXPECT_TRUE(Holds(*FetchNow(*tier, {0, 1}), {0, 1})) << "it is tried again, and has healed";
  EXPECT_TRUE(FetchNow(*tier, {1, 3}).ok()) << "no place was lost";
}

TEST_F(HostTierTest, ADamageToTheFileFailsOnlyWhatIsNotInMemory) {
  const auto tier = CreateCache(3);
  ASSERT_TRUE(FetchNow(*tier, {0, 0}).ok());
  std::filesystem::resize_file(path_, Offset({0, 2}));
  EXPECT_TRUE(Holds(*FetchNow(*tier, {0, 0}), {0, 0}));
  EXPECT_TRUE(Holds(*FetchNow(*tier, {0, 1}), {0, 1}));
  EXPECT_THAT(std::string(FetchNow(*tier, {0, 2}).status().message()),
              HasSubstr("expert 0/2: read 0 of 8192 bytes"));
  EXPECT_TRUE(Holds(*FetchNow(*tier, {0, 0}), {0, 0}));
}

TEST_F(HostTierTest, AnAnswerMayFetchAndMayGiveBackItsRecord) {
  const auto tier = CreateCache(2);
  Answer last;
  tier->Fetch({0, 0}, /*is_urgent=*/false, [&](absl::StatusOr<HostRecord> record) {
    ASSERT_TRUE(record.ok());
    record = absl::CancelledError();
    tier->Fetch({0, 0}, /*is_urgent=*/false, [&](absl::StatusOr<HostRecord> again) {
      ASSERT_TRUE(again.ok());
      EXPECT_FALSE(again->from_disk());
      tier->Fetch({0, 1}, /*is_urgent=*/true, last.done());
    });
  });
  ASSERT_TRUE(last.Await().ok());
  EXPECT_TRUE(Holds(*last.Await(), {0, 1}));
}

TEST_F(HostTierTest, ItsEndWaitsForReadsAndCancelsWhatHasNotBegun) {
  auto tier = CreateCache(2);
  HostTier* const closing = tier.get();
  disk_.Hold();
  std::vector<Answer> answers(3);
  Answer afterwards;
  tier->Fetch({0, 0}, /*is_urgent=*/true, [done = answers[0].done()](auto record) {
    done(record.ok() ? absl::OutOfRangeError("was read") : record.status());
  });
  disk_.AwaitHeld(1);
  tier->Fetch({0, 1}, /*is_urgent=*/true, [&](absl::StatusOr<HostRecord> record) {
    // Who tries again now must not wait for ever.
    closing->Fetch({1, 1}, /*is_urgent=*/true, afterwards.done());
    disk_.Release();
    answers[1].done()(std::move(record));
  });
  tier->Fetch({0, 1}, /*is_urgent=*/false, answers[2].done());
  tier.reset();
  ASSERT_TRUE(answers[0].is_there());
  EXPECT_EQ(answers[0].Await().status(), absl::OutOfRangeError("was read"));
  for (Answer* answer : {&answers[1], &answers[2]}) {
    ASSERT_TRUE(answer->is_there());
    EXPECT_EQ(answer->Await().status(),
              absl::CancelledError("expert 0/1: the host tier is closing"));
  }
  ASSERT_TRUE(afterwards.is_there());
  EXPECT_EQ(afterwards.Await().status(),
            absl::CancelledError("expert 1/1: the host tier is closing"));
}

TEST(HostRecord, IsGivenBackOnce) {
  int releases = 0;
  const auto release = [&releases] { ++releases; };
  const std::vector<std::byte> bytes(3);
  {
    HostRecord record(bytes, true, release);
    HostRecord moved = std::move(record);
    EXPECT_EQ(moved.bytes().size(), 3u);
    EXPECT_TRUE(moved.from_disk());
    EXPECT_EQ(releases, 0);
    moved = HostRecord(bytes, false, release);
    EXPECT_EQ(releases, 1) << "what was held goes back";
    EXPECT_FALSE(moved.from_disk());
  }
  EXPECT_EQ(releases, 2);
  HostRecord nothing(bytes, false, nullptr);
}

TEST_F(HostTierTest, ManyThreadsSeeOnlyWhatWasWritten) {
  const auto tier = Create({.budget_bytes = 4 * kStride, .num_readers = 3});
  std::atomic<int> wrong = 0;
  std::atomic<int> failed = 0;
  std::atomic<int> answered = 0;
  constexpr int kThreads = 6;
  constexpr int kFetches = 150;
  {
    std::vector<std::unique_ptr<Thread>> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.push_back(std::make_unique<Thread>("fetcher", [&, t] {
        std::mt19937 random(t);
        for (int i = 0; i < kFetches; ++i) {
          const ExpertId id = {static_cast<uint32_t>(random() % 2),
                               static_cast<uint32_t>(random() % 4)};
          if (random() % 8 == 0) {
            const auto fault = static_cast<FaultyDisk::Fault>(random() % 3);
            disk_.Add(fault, Offset(id) + random() % kStride, 1 + static_cast<int>(random() % 4));
          }
          const absl::StatusOr<HostRecord> record = FetchNow(*tier, id, random() % 2 == 0);
          ++answered;
          if (!record.ok()) {
            ++failed;
            if (record.status().code() != absl::StatusCode::kDataLoss) ++wrong;
            continue;
          }
          if (!Holds(*record, id)) ++wrong;
        }
      }));
    }
  }
  EXPECT_EQ(answered, kThreads * kFetches);
  EXPECT_EQ(wrong, 0);
  EXPECT_LT(failed, kThreads * kFetches / 2);
  disk_.Heal();
  for (uint32_t flat = 0; flat < 8; ++flat) {
    const ExpertId id = ExpertId::FromFlat(flat, 4);
    EXPECT_TRUE(Holds(*FetchNow(*tier, id), id));
  }
}

}  // namespace
}  // namespace pregate
