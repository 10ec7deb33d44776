#include "core/storage/expert_pack.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/storage/expert_pack_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_pack.h"

namespace pregate {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const ExpertPackHeader kHeader = {
    .num_layers = 2,
    .num_experts = 3,
    .record_bytes = 5000,
    .properties = {{"codec", "int8"}, {"source", "a \"model\"\nof Ünicode"}}};

// Memory for strides, where O_DIRECT can write.
class Strides {
 public:
  Strides(const ExpertPack& pack, uint64_t count)
      : size_(pack.stride_bytes() * count),
        data_(static_cast<std::byte*>(std::aligned_alloc(kPackAlignment, size_)), &std::free) {}
  absl::Span<std::byte> span() const { return absl::MakeSpan(data_.get(), size_); }
  std::vector<std::byte> Content(const ExpertPack& pack, uint64_t index = 0) const {
    const std::byte* begin = data_.get() + index * pack.stride_bytes();
    return {begin, begin + pack.header().record_bytes};
  }

 private:
  uint64_t size_;
  std::unique_ptr<std::byte, decltype(&std::free)> data_;
};

absl::Status ReadOne(const ExpertPack& pack, uint32_t layer, uint32_t expert) {
  const Strides stride(pack, 1);
  return pack.Read(layer, expert, stride.span());
}

std::string OpenError(const std::string& path) {
  const absl::Status status = ExpertPack::Open(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(ExpertPack, GivesBackWhatWasWritten) {
  const TempFolder folder;
  const auto pack = ExpertPack::Open(WriteTestPack(folder / "experts.pack", kHeader));
  ASSERT_TRUE(pack.ok()) << pack.status();
  EXPECT_EQ(pack->header(), kHeader);
  EXPECT_EQ(pack->num_records(), 6u);
  EXPECT_EQ(pack->path(), folder / "experts.pack");
  EXPECT_EQ(pack->stride_bytes(), 8192u);
  EXPECT_EQ(pack->offset_of(0, 0), 4096u);
  EXPECT_EQ(pack->offset_of(1, 2), 4096u + 5 * 8192);
  const Strides stride(*pack, 1);
  for (uint32_t layer = 0; layer < 2; ++layer) {
    for (uint32_t expert = 0; expert < 3; ++expert) {
      ASSERT_EQ(pack->Read(layer, expert, stride.span()), absl::OkStatus());
      EXPECT_EQ(stride.Content(*pack), TestRecord(5000, layer, expert));
      EXPECT_EQ(pack->Check(layer, expert, stride.span()), absl::OkStatus());
      EXPECT_FALSE(pack->Check(layer, (expert + 1) % 3, stride.span()).ok());
    }
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "experts.pack.partial"));
}

TEST(ExpertPack, ReadsARunWithOneCallAcrossLayers) {
  const TempFolder folder;
  FaultyDisk disk;
  const auto pack = ExpertPack::Open(WriteTestPack(folder / "p", kHeader), disk.pread());
  ASSERT_TRUE(pack.ok()) << pack.status();
  disk.ForgetOffsets();
  const Strides strides(*pack, 3);
  std::vector<absl::Status> statuses(3, absl::UnknownError(""));
  pack->ReadRun(0, 2, 3, strides.span(), absl::MakeSpan(statuses));
  EXPECT_THAT(statuses, ElementsAre(absl::OkStatus(), absl::OkStatus(), absl::OkStatus()));
  EXPECT_EQ(strides.Content(*pack, 0), TestRecord(5000, 0, 2));
  EXPECT_EQ(strides.Content(*pack, 2), TestRecord(5000, 1, 1));
  EXPECT_THAT(disk.offsets(), ElementsAre(pack->offset_of(0, 2)));
}

TEST(ExpertPack, OneBadRecordDoesNotTakeItsRunWithIt) {
  const TempFolder folder;
  FaultyDisk disk;
  const auto pack = ExpertPack::Open(WriteTestPack(folder / "p", kHeader), disk.pread());
  ASSERT_TRUE(pack.ok()) << pack.status();
  disk.Add(FaultyDisk::Fault::kError, pack->offset_of(0, 1) + 100, 2);
  const Strides strides(*pack, 3);
  std::vector<absl::Status> statuses(3);
  pack->ReadRun(0, 0, 3, strides.span(), absl::MakeSpan(statuses));
  EXPECT_EQ(statuses[0], absl::OkStatus());
  EXPECT_EQ(statuses[1],
            absl::DataLossError(absl::StrCat("expert 0/1: cannot read 8192 bytes at 0x3000 of ",
                                             folder / "p",
                                             ": Input/output error")));
  EXPECT_EQ(statuses[2], absl::OkStatus());
  EXPECT_EQ(strides.Content(*pack, 0), TestRecord(5000, 0, 0));
  EXPECT_EQ(strides.Content(*pack, 2), TestRecord(5000, 0, 2));
}

TEST(ExpertPack, AShortReadSaysWhatWasReadAndWhere) {
  const TempFolder folder;
  const std::string path = WriteTestPack(folder / "experts.pack", kHeader);
  const auto pack = ExpertPack::Open(path);
  ASSERT_TRUE(pack.ok()) << pack.status();
  std::filesystem::resize_file(path, pack->offset_of(1, 1) + 3);
  EXPECT_EQ(
      ReadOne(*pack, 1, 1),
      absl::DataLossError(absl::StrCat("expert 1/1: read 3 of 8192 bytes at 0x9000 of ", path)));
  EXPECT_EQ(
      ReadOne(*pack, 1, 2),
      absl::DataLossError(absl::StrCat("expert 1/2: read 0 of 8192 bytes at 0xb000 of ", path)));
  EXPECT_EQ(ReadOne(*pack, 1, 0), absl::OkStatus());
}

TEST(ExpertPack, GoesOnBehindAReadThatBringsLess) {
  const TempFolder folder;
  // Signals and blocks that come late: an odd number of bytes at a time.
  int calls = 0;
  const auto pack =
      ExpertPack::Open(WriteTestPack(folder / "p", kHeader),
                       [&calls](int descriptor, void* to, size_t bytes, off_t offset) -> ssize_t {
                         if (++calls % 3 == 0) {
                           errno = EINTR;
                           return -1;
                         }
                         const ssize_t read = ::pread(descriptor, to, bytes, offset);
                         return std::min<ssize_t>(read, 1001);
                       });
  ASSERT_TRUE(pack.ok()) << pack.status();
  EXPECT_EQ(ReadOne(*pack, 1, 1), absl::OkStatus());
}

TEST(ExpertPack, AShortReadDoesNotEndDirectReads) {
  const TempFolder folder;
  int direct = 0;
  bool is_short = true;
  const auto pack = ExpertPack::Open(
      WriteTestPack(folder / "p", kHeader),
      [&](int descriptor, void* to, size_t bytes, off_t offset) -> ssize_t {
        if ((fcntl(descriptor, F_GETFL) & O_DIRECT) != 0) ++direct;
        const ssize_t read = ::pread(descriptor, to, bytes, offset);
        return std::exchange(is_short, false) ? std::min<ssize_t>(read, 1001) : read;
      });
  ASSERT_TRUE(pack.ok()) << pack.status();
  is_short = true;
  ASSERT_EQ(ReadOne(*pack, 0, 0), absl::OkStatus());
  if (direct == 0) GTEST_SKIP() << "this file system has no O_DIRECT";
  EXPECT_EQ(direct, 1) << "the rest begins where O_DIRECT cannot read";
  ASSERT_EQ(ReadOne(*pack, 0, 1), absl::OkStatus());
  EXPECT_EQ(direct, 2);
}

TEST(ExpertPack, ReadsThroughThePageCacheWhereDirectReadsFail) {
  const TempFolder folder;
  int refused = 0;
  const auto pack =
      ExpertPack::Open(WriteTestPack(folder / "p", kHeader),
                       [&refused](int descriptor, void* to, size_t bytes, off_t offset) -> ssize_t {
                         if ((fcntl(descriptor, F_GETFL) & O_DIRECT) != 0) {
                           ++refused;
                           errno = EINVAL;
                           return -1;
                         }
                         return ::pread(descriptor, to, bytes, offset);
                       });
  ASSERT_TRUE(pack.ok()) << pack.status();
  EXPECT_EQ(ReadOne(*pack, 0, 0), absl::OkStatus());
  EXPECT_EQ(ReadOne(*pack, 0, 1), absl::OkStatus());
  EXPECT_LE(refused, 1) << "once is enough to know";
}

TEST(ExpertPack, FindsAFlippedBitOfARecordAndNamesTheExpert) {
  const TempFolder folder;
  const std::string path = WriteTestPack(folder / "experts.pack", kHeader);
  const auto pack = ExpertPack::Open(path);
  ASSERT_TRUE(pack.ok()) << pack.status();
  const uint64_t begin = pack->offset_of(1, 0);
  const uint64_t end = begin + pack->stride_bytes();
  const struct {
    uint64_t offset;
    const char* reason;
  } kPlaces[] = {{begin, "its checksum is"},
                 {begin + 4999, "its checksum is"},
                 {begin + 5000, "padding"},
                 {end - 17, "padding"},
                 {end - 16, "in its trailer is"},
                 {end - 8, "its trailer says that it is expert 0/0"},
                 {end - 1, "its trailer says that it is expert 1/16777216"}};
  for (const auto& place : kPlaces) {
    FlipBit(path, place.offset, 0);
    const absl::Status status = ReadOne(*pack, 1, 0);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("expert 1/0: "), HasSubstr(place.reason), HasSubstr(path)));
    FlipBit(path, place.offset, 0);
    EXPECT_EQ(ReadOne(*pack, 1, 0), absl::OkStatus());
  }
}

TEST(ExpertPack, FindsEveryFlippedBitOfTheHeader) {
  const TempFolder folder;
  const std::string path = WriteTestPack(folder / "experts.pack", kHeader);
  for (uint64_t offset = 0; offset < 4096; ++offset) {
    const int bit = static_cast<int>(offset * 5 % 8);
    FlipBit(path, offset, bit);
    EXPECT_THAT(OpenError(path), HasSubstr(path + ": header: ")) << offset;
    FlipBit(path, offset, bit);
  }
  EXPECT_TRUE(ExpertPack::Open(path).ok());
}

TEST(ExpertPack, RefusesWhatIsNoPackAndSaysWhy) {
  const TempFolder folder;
  EXPECT_EQ(ExpertPack::Open(folder / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(OpenError(folder.path()), HasSubstr("it is not a file"));
  EXPECT_THAT(OpenError(folder.Write("empty", "")), HasSubstr("not a pack of experts"));
  EXPECT_THAT(OpenError(folder.Write("short", "PGEXPERT")), HasSubstr("8 bytes, where the"));
  const std::string path = WriteTestPack(folder / "experts.pack", kHeader);
  std::string bytes = ReadFile(path);
  bytes[8] = 2;
  EXPECT_THAT(OpenError(folder.Write("newer", bytes)),
              HasSubstr("version 2 where this program reads 1: pack the model again"));
  std::filesystem::resize_file(path, 4096 + 5 * 8192);
  EXPECT_EQ(OpenError(path),
            absl::StrCat(path,
                         ": the file has 45056 bytes, with 6 records of 8192 it should have "
                         "53248"));
}

// As `hexdump -C` shows it.
std::string HexDump(const std::string& bytes) {
  std::string dump;
  std::string last;
  bool is_repeated = false;
  for (size_t begin = 0; begin < bytes.size(); begin += 16) {
    const std::string row = bytes.substr(begin, 16);
    if (row == last) {
      if (!std::exchange(is_repeated, true)) dump += "*\n";
      continue;
    }
    last = row;
    is_repeated = false;
    absl::StrAppend(&dump, absl::Hex(begin, absl::kZeroPad8), " ");
    std::string text;
    for (size_t i = 0; i < row.size(); ++i) {
      const auto byte = static_cast<unsigned char>(row[i]);
      absl::StrAppend(&dump, i % 8 == 0 ? " " : "", absl::Hex(byte, absl::kZeroPad2), " ");
      text += absl::ascii_isprint(byte) ? row[i] : '.';
    }
    absl::StrAppend(&dump, " |", text, "|\n");
  }
  absl::StrAppend(&dump, absl::Hex(bytes.size(), absl::kZeroPad8), "\n");
  return dump;
}

TEST(ExpertPack, IsByteByByteWhatItsDocumentShows) {
  const TempFolder folder;
  const ExpertPackHeader header = {
      .num_layers = 1, .num_experts = 2, .record_bytes = 24, .properties = {{"codec", "none"}}};
  auto writer = ExpertPackWriter::Create(folder / "experts.pack", header);
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (const int first : {0x10, 0x40}) {
    std::vector<std::byte> content;
    for (int i = 0; i < 24; ++i) content.push_back(static_cast<std::byte>(first + i));
    ASSERT_EQ((*writer)->Append(content), absl::OkStatus());
  }
  ASSERT_EQ((*writer)->Finish(), absl::OkStatus());
  EXPECT_THAT(ReadFile(std::string(PREGATE_SOURCE_DIR) + "/docs/expert-pack.md"),
              HasSubstr(HexDump(ReadFile(folder / "experts.pack"))));
}

TEST(ExpertPackWriter, RefusesHeadersThatNoPackCanHave) {
  const TempFolder folder;
  const auto error = [&folder](ExpertPackHeader header) {
    const absl::Status status = ExpertPackWriter::Create(folder / "p", header).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  const auto with = [](auto change) {
    ExpertPackHeader header = kHeader;
    change(header);
    return header;
  };
  EXPECT_THAT(error(with([](auto& h) { h.num_layers = 0; })), HasSubstr("num_layers is 0"));
  EXPECT_THAT(error(with([](auto& h) { h.num_experts = 0; })), HasSubstr("num_experts is 0"));
  EXPECT_THAT(error(with([](auto& h) { h.record_bytes = 0; })), HasSubstr("record_bytes is 0"));
  EXPECT_THAT(error(with([](auto& h) { h.num_layers = h.num_experts = 1u << 16; })),
              HasSubstr("65536 layers of 65536 experts are 2^32 records or more"));
  for (const uint64_t bytes : {UINT64_MAX, uint64_t{1} << 63, uint64_t{1} << 61}) {
    EXPECT_THAT(error(with([bytes](auto& h) { h.record_bytes = bytes; })),
                HasSubstr("are more than 2^63 bytes"));
  }
  EXPECT_THAT(error(with([](auto& h) { h.properties["x"] = "\xff"; })), HasSubstr("not UTF-8"));
  EXPECT_THAT(error(with([](auto& h) { h.properties["x"] = std::string(1 << 20, 'x'); })),
              HasSubstr("do not fit in a header of at most 1.0 MiB"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ExpertPackWriter, KeepsPropertiesLongerThanAPage) {
  const TempFolder folder;
  ExpertPackHeader header = kHeader;
  header.properties["config"] = std::string(10000, 'x');
  const auto pack = ExpertPack::Open(WriteTestPack(folder / "p", header));
  ASSERT_TRUE(pack.ok()) << pack.status();
  EXPECT_EQ(pack->header(), header);
  EXPECT_EQ(pack->offset_of(0, 0), 12288u);
  EXPECT_EQ(ReadOne(*pack, 1, 2), absl::OkStatus());
}

TEST(ExpertPackWriter, SaysWhatIsMissingOrTooMuch) {
  const TempFolder folder;
  auto writer = ExpertPackWriter::Create(folder / "p", kHeader);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_EQ((*writer)->Append(std::vector<std::byte>(4999)),
            absl::InvalidArgumentError(
                absl::StrCat(folder / "p", ": a record of 4999 bytes where each has 5000")));
  for (uint32_t i = 0; i < 5; ++i) {
    ASSERT_EQ((*writer)->Append(TestRecord(5000, i / 3, i % 3)), absl::OkStatus());
  }
  EXPECT_EQ(
      (*writer)->Finish(),
      absl::FailedPreconditionError(absl::StrCat(folder / "p", ": 1 of 6 records are missing")));
  EXPECT_FALSE(std::filesystem::exists(folder / "p"));
  ASSERT_EQ((*writer)->Append(TestRecord(5000, 1, 2)), absl::OkStatus());
  EXPECT_EQ((*writer)->Append(TestRecord(5000, 0, 0)).code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ((*writer)->Finish(), absl::OkStatus());
  EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*writer)->Append(TestRecord(5000, 0, 0)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReadFile(folder / "p"), ReadFile(WriteTestPack(folder / "other", kHeader)));
}

// Writes records up to `end` and leaves the writer there.
void Pack(const std::string& path, const ExpertPackHeader& header, uint32_t end) {
  auto writer = ExpertPackWriter::Create(path, header);
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (auto i = static_cast<uint32_t>((*writer)->num_written()); i < end; ++i) {
    ASSERT_EQ((*writer)->Append(
                  TestRecord(header.record_bytes, i / header.num_experts, i % header.num_experts)),
              absl::OkStatus());
  }
}

uint64_t NumWritten(const std::string& path, const ExpertPackHeader& header) {
  const auto writer = ExpertPackWriter::Create(path, header);
  EXPECT_TRUE(writer.ok()) << writer.status();
  return (*writer)->num_written();
}

TEST(ExpertPackWriter, GoesOnBehindTheLastWholeRecord) {
  const TempFolder folder;
  const std::string path = folder / "p";
  const std::string partial = path + ".partial";
  Pack(path, kHeader, 4);
  EXPECT_EQ(NumWritten(path, kHeader), 4u);
  std::filesystem::resize_file(partial, 4096 + 3 * 8192 + 8191);
  EXPECT_EQ(NumWritten(path, kHeader), 3u);
  FlipBit(partial, 4096 + 8192 + 17, 3);
  EXPECT_EQ(NumWritten(path, kHeader), 1u) << "what a power cut left is not believed";
  EXPECT_EQ(std::filesystem::file_size(partial), 4096u + 8192);
  std::filesystem::resize_file(partial, 4095);
  EXPECT_EQ(NumWritten(path, kHeader), 0u);
  Pack(path, kHeader, 2);
  WriteTestPack(path, kHeader);
  EXPECT_EQ(ReadFile(path), ReadFile(WriteTestPack(folder / "other", kHeader)));
}

TEST(ExpertPackWriter, BeginsAnewForAnotherHeader) {
  const TempFolder folder;
  Pack(folder / "p", kHeader, 4);
  ExpertPackHeader other = kHeader;
  other.properties["source"] = "another model";
  EXPECT_EQ(NumWritten(folder / "p", other), 0u);
  EXPECT_EQ(NumWritten(folder / "p", other), 0u) << "the records of the first are gone";
  EXPECT_EQ(NumWritten(folder / "p", kHeader), 0u);
}

TEST(ExpertPackWriter, ReplacesAPackThatIsThereOnlyWhenFinished) {
  const TempFolder folder;
  const std::string path = WriteTestPack(folder / "p", kHeader, /*seed=*/7);
  const std::string before = ReadFile(path);
  const auto open = ExpertPack::Open(path);
  Pack(path, kHeader, 6);
  EXPECT_EQ(ReadFile(path), before);
  WriteTestPack(path, kHeader);
  EXPECT_NE(ReadFile(path), before);
  ASSERT_TRUE(open.ok());
  EXPECT_EQ(ReadOne(*open, 1, 1), absl::OkStatus()) << "who has it open keeps the old one";
}

TEST(ExpertPackWriter, RefusesASecondWriterOfTheSamePath) {
  const TempFolder folder;
  auto first = ExpertPackWriter::Create(folder / "p", kHeader);
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = ExpertPackWriter::Create(folder / "p", kHeader).status();
  EXPECT_EQ(second,
            absl::FailedPreconditionError(
                absl::StrCat("another writer is at work on ", folder / "p", ".partial")));
  first->reset();
  EXPECT_TRUE(ExpertPackWriter::Create(folder / "p", kHeader).ok());
}

// No file of this process grows beyond `bytes` while this lives: a disk that is full.
class FullDisk {
 public:
  explicit FullDisk(uint64_t bytes) : handler_(signal(SIGXFSZ, SIG_IGN)) {
    EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &limit_), 0);
    const struct rlimit lower = {.rlim_cur = bytes, .rlim_max = limit_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &lower), 0);
  }
  ~FullDisk() {
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit_), 0);
    signal(SIGXFSZ, handler_);
  }

 private:
  struct rlimit limit_;
  void (*handler_)(int);
};

TEST(ExpertPackWriter, AFullDiskIsAnErrorAndNoPack) {
  const TempFolder folder;
  const std::string path = folder / "p";
  auto writer = ExpertPackWriter::Create(path, kHeader);
  ASSERT_TRUE(writer.ok()) << writer.status();
  {
    const FullDisk full(4096 + 8192 + 100);
    ASSERT_EQ((*writer)->Append(TestRecord(5000, 0, 0)), absl::OkStatus());
    const absl::Status status = (*writer)->Append(TestRecord(5000, 0, 1));
    EXPECT_THAT(
        std::string(status.message()),
        AllOf(HasSubstr(absl::StrCat("of ", path, ".partial")), HasSubstr("File too large")));
    EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_EQ(std::filesystem::file_size(path + ".partial"), 4096u + 8192);
  }
  for (uint32_t i = 1; i < 6; ++i) {
    ASSERT_EQ((*writer)->Append(TestRecord(5000, i / 3, i % 3)), absl::OkStatus());
  }
  ASSERT_EQ((*writer)->Finish(), absl::OkStatus());
  EXPECT_EQ(ReadFile(path), ReadFile(WriteTestPack(folder / "other", kHeader)));
}

TEST(ExpertPackWriter, AKillAtAnyMomentLeavesAWholePackOrNone) {
  const TempFolder folder;
  const ExpertPackHeader header = {.num_layers = 4, .num_experts = 16, .record_bytes = 60000};
  const std::string expected = ReadFile(WriteTestPack(folder / "expected", header));
  const std::string path = folder / "p";
  std::mt19937 random(20240117);
  for (int kills = 0; kills < 25; ++kills) {
    // The kill comes when the child has said that it has got so far, in whatever it does next.
    const uint32_t moment = std::uniform_int_distribution<uint32_t>(0, 65)(random);
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto writer = ExpertPackWriter::Create(path, header);
      if (!writer.ok()) _exit(1);
      for (auto i = static_cast<uint32_t>((*writer)->num_written()); i < 64; ++i) {
        if (!(*writer)->Append(TestRecord(60000, i / 16, i % 16)).ok()) _exit(2);
        if (write(pipe_ends[1], "x", 1) != 1) _exit(3);
      }
      _exit((*writer)->Finish().ok() ? 0 : 4);
    }
    close(pipe_ends[1]);
    char byte = 0;
    for (uint32_t i = 0; i < moment && read(pipe_ends[0], &byte, 1) == 1; ++i) {
    }
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    close(pipe_ends[0]);
    ASSERT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << WEXITSTATUS(status);
    if (std::filesystem::exists(path)) {
      EXPECT_EQ(ReadFile(path) == expected, true) << "killed at " << moment;
      std::filesystem::remove(path);
    } else if (kills % 3 == 0) {
      WriteTestPack(path, header);
      EXPECT_EQ(ReadFile(path) == expected, true) << "resumed after a kill at " << moment;
      std::filesystem::remove(path);
    }
  }
}

}  // namespace
}  // namespace pregate
