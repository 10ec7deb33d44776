#include "core/storage/safetensors.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rapidcheck.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Span<const std::byte> Bytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size());
}
std::string Text(absl::Span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

// Writes a file of U8 vectors and returns its path.
std::string WriteVectors(const TempFolder& folder,
                         const std::string& name,
                         const std::vector<std::pair<std::string, std::string>>& vectors) {
  std::vector<TensorSpec> specs;
  for (const auto& [tensor, bytes] : vectors) {
    specs.push_back(
        {.name = tensor, .dtype = TensorDtype::kU8, .shape = {static_cast<int64_t>(bytes.size())}});
  }
  auto writer = SafetensorsWriter::Create(folder / name, specs, {{"file", name}});
  for (const auto& [tensor, bytes] : vectors) {
    EXPECT_TRUE((*writer)->Append(Bytes(bytes)).ok()) << tensor;
  }
  EXPECT_TRUE((*writer)->Finish().ok());
  return folder / name;
}

std::vector<std::string> Names(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename());
  }
  return names;
}

TEST(Safetensors, FindsATensorByName) {
  const TempFolder folder;
  const std::string path = WriteVectors(folder, "f", {{"b", "12"}, {"a", "345"}});
  const auto file = Safetensors::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const TensorView* a = file->Find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->dtype, TensorDtype::kU8);
  EXPECT_THAT(a->shape, ElementsAre(3));
  EXPECT_EQ(Text(a->bytes), "345");
  EXPECT_EQ(a->file, path);
  EXPECT_EQ(file->Find("c"), nullptr);
  EXPECT_EQ(file->metadata().at("file"), "f");
}

TEST(Safetensors, KeepsItsViewsWhenMoved) {
  const TempFolder folder;
  auto file = Safetensors::Open(WriteVectors(folder, "f", {{"a", "bytes"}}));
  ASSERT_TRUE(file.ok());
  const Safetensors moved = *std::move(file);
  EXPECT_EQ(Text(moved.Find("a")->bytes), "bytes");
  EXPECT_EQ(moved.Find("a")->file, folder / "f");
}

TEST(Safetensors, NamesTheFileAtFault) {
  const TempFolder folder;
  const std::string path = WriteVectors(folder, "f", {{"weights", "bytes"}});
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  const absl::Status status = Safetensors::Open(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            path +
                ": tensor 'weights' at data offsets [0, 5) ends past the data, which has 4 bytes: "
                "the file is truncated");
  EXPECT_EQ(Safetensors::Open(folder / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Safetensors::Open(folder.Write("empty", "")).status().message()),
              HasSubstr("/empty: the file has 0 bytes"));
}

TEST(SafetensorsFolder, IsOneFileOrAnIndexOfShards) {
  const TempFolder folder;
  EXPECT_THAT(std::string(Safetensors::OpenFolder(folder.path()).status().message()),
              HasSubstr("neither model.safetensors nor model.safetensors.index.json is there"));

  WriteVectors(folder, "one.safetensors", {{"a", "1"}, {"unlisted", "x"}});
  WriteVectors(folder, "two.safetensors", {{"b", "22"}});
  folder.Write("model.safetensors.index.json",
               R"({"metadata":{"total_size":3},)"
               R"("weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const auto shards = Safetensors::OpenFolder(folder.path());
  ASSERT_TRUE(shards.ok()) << shards.status();
  EXPECT_EQ(shards->tensors().size(), 2u);
  EXPECT_EQ(Text(shards->Find("a")->bytes), "1");
  EXPECT_EQ(Text(shards->Find("b")->bytes), "22");
  EXPECT_EQ(shards->Find("b")->file, folder / "two.safetensors");
  EXPECT_EQ(shards->metadata().at("file"), "one.safetensors");

  WriteVectors(folder, "model.safetensors", {{"c", "3"}});
  const auto single = Safetensors::OpenFolder(folder.path());
  ASSERT_TRUE(single.ok()) << single.status();
  EXPECT_EQ(single->tensors().size(), 1u) << "the single file comes before the index";
}

TEST(SafetensorsFolder, RefusesAWrongIndex) {
  const TempFolder folder;
  WriteVectors(folder, "one.safetensors", {{"a", "1"}});
  const auto message = [&](const std::string& index) {
    folder.Write("model.safetensors.index.json", index);
    return std::string(Safetensors::OpenFolder(folder.path()).status().message());
  };
  EXPECT_THAT(message("{"), HasSubstr("index.json: not JSON"));
  EXPECT_THAT(message("[]"), HasSubstr("no object 'weight_map'"));
  EXPECT_THAT(message(R"({"weight_map":[]})"), HasSubstr("no object 'weight_map'"));
  EXPECT_THAT(message(R"({"weight_map":{"a":1}})"), HasSubstr("tensor 'a': not a file's name"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})"),
              HasSubstr("'a' appears twice"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"../one.safetensors"}})"),
              HasSubstr("'../one.safetensors' is not a file of the same folder"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"none.safetensors"}})"),
              HasSubstr("none.safetensors: No such file or directory"));
  EXPECT_THAT(message(R"({"weight_map":{"z":"one.safetensors"}})"),
              HasSubstr("one.safetensors: no tensor 'z'"));
  std::filesystem::resize_file(folder / "model.safetensors.index.json",
                               (size_t{64} << 20) + 1);  // a hole
  EXPECT_THAT(std::string(Safetensors::OpenFolder(folder.path()).status().message()),
              HasSubstr("an index of 67108865 bytes, more than 67108864"));
}

TEST(SafetensorsWriter, LeavesAWholeFileOrNone) {
  const TempFolder folder;
  const std::string path = folder.Write("f", "what was there before");
  {
    auto writer = SafetensorsWriter::Create(
        path, {{.name = "a", .dtype = TensorDtype::kU8, .shape = {4}}}, {});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append(Bytes("123")).ok());
    EXPECT_THAT(std::string((*writer)->Finish().message()),
                HasSubstr("/f: 1 bytes of its tensors are missing"));
    EXPECT_THAT(std::string((*writer)->Append(Bytes("45")).message()),
                HasSubstr("/f: 2 bytes given where 1 are still to come"));
  }
  EXPECT_THAT(Names(folder.path()), ElementsAre("f")) << "no temporary file is left";
  EXPECT_EQ(ReadFile(path), "what was there before");

  auto writer =
      SafetensorsWriter::Create(path, {{.name = "a", .dtype = TensorDtype::kU8, .shape = {4}}}, {});
  ASSERT_TRUE((*writer)->Append(Bytes("1234")).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Names(folder.path()), ElementsAre("f"));
  EXPECT_EQ(Text(Safetensors::Open(path)->Find("a")->bytes), "1234");
}

TEST(SafetensorsWriter, NamesTheFileThatItCannotWrite) {
  const TempFolder folder;
  const auto writer = SafetensorsWriter::Create(folder / "none/f", {}, {});
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(writer.status().message()), HasSubstr("cannot create " + folder.path()));
}

// Any tensors with any names, written in any chunks, are read back as they were.
TEST(Safetensors, RoundTrip) {
  EXPECT_TRUE(rc::check([] {
    const TempFolder folder;
    const auto names = *rc::gen::unique<std::vector<std::string>>(
        rc::gen::container<std::string>(rc::gen::inRange<char>(1, 127)));
    const auto metadata = *rc::gen::container<std::map<std::string, std::string>>(
        rc::gen::container<std::string>(rc::gen::inRange<char>(1, 127)),
        rc::gen::container<std::string>(rc::gen::inRange<char>(1, 127)));
    std::vector<TensorSpec> specs;
    std::vector<std::string> contents;
    std::string all;
    for (const std::string& name : names) {
      TensorSpec spec{.name = name,
                      .dtype = static_cast<TensorDtype>(*rc::gen::inRange(0, 13)),
                      .shape = *rc::gen::container<std::vector<int64_t>>(
                          *rc::gen::inRange<size_t>(0, 4), rc::gen::inRange<int64_t>(0, 5))};
      size_t size = TensorDtypeSize(spec.dtype);
      for (const int64_t extent : spec.shape) size *= static_cast<size_t>(extent);
      contents.push_back(*rc::gen::container<std::string>(size, rc::gen::arbitrary<char>()));
      all += contents.back();
      specs.push_back(std::move(spec));
    }

    auto writer = SafetensorsWriter::Create(folder / "f", specs, metadata);
    RC_ASSERT(writer.ok());
    for (absl::Span<const std::byte> rest = Bytes(all); !rest.empty();) {
      const size_t chunk = *rc::gen::inRange<size_t>(1, rest.size() + 1);
      RC_ASSERT((*writer)->Append(rest.subspan(0, chunk)).ok());
      rest.remove_prefix(chunk);
    }
    RC_ASSERT((*writer)->Finish().ok());

    const auto file = Safetensors::Open(folder / "f");
    RC_ASSERT(file.ok());
    RC_ASSERT(file->metadata() == metadata);
    RC_ASSERT(file->tensors().size() == specs.size());
    for (size_t i = 0; i < specs.size(); ++i) {
      const TensorView* tensor = file->Find(specs[i].name);
      RC_ASSERT(tensor != nullptr);
      RC_ASSERT(tensor->dtype == specs[i].dtype);
      RC_ASSERT(tensor->shape == specs[i].shape);
      RC_ASSERT(Text(tensor->bytes) == contents[i]);
    }
  }));
}

// Whatever stands in a file, the answer is a status or tensors that lie inside it.
TEST(Safetensors, SurvivesAnyDamage) {
  const TempFolder folder;
  const std::string path = WriteVectors(folder, "f", {{"a", "12"}, {"b", ""}, {"c", "345"}});
  const std::string whole = ReadFile(path);
  EXPECT_TRUE(rc::check([&] {
    std::string damaged = whole;
    const auto places = *rc::gen::nonEmpty(
        rc::gen::container<std::vector<size_t>>(rc::gen::inRange<size_t>(0, whole.size())));
    for (const size_t place : places) damaged[place] = *rc::gen::arbitrary<char>();
    const auto file = Safetensors::Open(folder.Write("damaged", damaged));
    if (!file.ok()) return;
    for (const auto& [name, tensor] : file->tensors()) {
      RC_ASSERT(Text(tensor.bytes).size() <= damaged.size());
    }
  }));
}

}  // namespace
}  // namespace pregate
