#include "core/storage/safetensors_header.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;

absl::Span<const std::byte> Bytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size());
}

// A file whose header is `json`, before `data_size` bytes.
std::string File(const std::string& json, size_t data_size) {
  std::string file;
  for (size_t i = 0; i < 8; ++i) file.push_back(static_cast<char>(json.size() >> (8 * i)));
  return file + json + std::string(data_size, '\1');
}

std::string Message(const std::string& file) {
  return std::string(ParseSafetensorsHeader(Bytes(file)).status().message());
}

TEST(SafetensorsHeader, ReadsTensorsInTheOrderOfTheirBytes) {
  const std::string file = File(R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
                                R"("__metadata__":{"format":"pt"},)"
                                R"("a":{"data_offsets":[0,4],"shape":[],"dtype":"F32"}}   )",
                                16);
  const auto header = ParseSafetensorsHeader(Bytes(file));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->size, file.size() - 16);
  EXPECT_EQ(header->metadata.at("format"), "pt");
  ASSERT_EQ(header->tensors.size(), 2u);
  EXPECT_EQ(header->tensors[0].spec.name, "a");
  EXPECT_EQ(header->tensors[0].spec.dtype, TensorDtype::kF32);
  EXPECT_TRUE(header->tensors[0].spec.shape.empty());
  EXPECT_EQ(header->tensors[1].spec.name, "b");
  EXPECT_EQ(header->tensors[1].spec.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header->tensors[1].begin, 4u);
  EXPECT_EQ(header->tensors[1].end, 16u);
}

TEST(SafetensorsHeader, TakesTensorsWithoutElements) {
  EXPECT_TRUE(ParseSafetensorsHeader(
                  Bytes(File(R"({"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},)"
                             R"("b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                             R"("c":{"dtype":"I64","shape":[0],"data_offsets":[2,2]}})",
                             2)))
                  .ok());
  EXPECT_TRUE(ParseSafetensorsHeader(Bytes(File("{}", 0))).ok()) << "a file without tensors";
}

struct Malformed {
  const char* name;
  std::string json;
  size_t data_size;
  const char* message;
};

class SafetensorsHeaderRefuses : public ::testing::TestWithParam<Malformed> {};

TEST_P(SafetensorsHeaderRefuses, WithAReason) {
  const auto header = ParseSafetensorsHeader(Bytes(File(GetParam().json, GetParam().data_size)));
  EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(header.status().message()), HasSubstr(GetParam().message));
}

const Malformed kMalformed[] = {
    {"Empty", "", 0, "does not begin with '{' at offset 8"},
    {"LeadingSpace", " {}", 0, "does not begin with '{' at offset 8"},
    {"List", "[]", 0, "does not begin with '{'"},
    {"Cut", R"({"a":{"dtype":"F32")", 0, "not JSON at offset 27"},
    {"TrailingText", "{} x", 0, "not JSON at offset 11"},
    {"NotUtf8", "{\"\xff\":{}}", 0, "not JSON at offset"},
    {"Deep",
     std::string(R"({"a":)") + std::string(1 << 20, '['),
     0,
     "'a' is a list, not an object"},
    {"TensorIsNumber", R"({"a":1})", 0, "'a' is 1, not an object"},
    {"TensorIsNull", R"({"a":null})", 0, "'a' is null, not an object"},
    {"TensorTwice",
     R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
     R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
     2,
     "'a' appears twice"},
    {"KeyTwice", R"({"a":{"dtype":"U8","dtype":"I8"}})", 0, "'a': key 'dtype' appears twice"},
    {"KeyUnknown", R"({"a":{"strides":[1]}})", 0, "tensor 'a': unknown key 'strides'"},
    {"NoDtype", R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1, "tensor 'a': no dtype"},
    {"NoShape", R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "tensor 'a': no shape"},
    {"NoOffsets", R"({"a":{"dtype":"U8","shape":[1]}})", 1, "tensor 'a': no data_offsets"},
    {"DtypeUnknown",
     R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})",
     1,
     "tensor 'a': dtype 'F8_E4M3' is not one of BOOL, U8, I8"},
    {"DtypeNumber", R"({"a":{"dtype":4}})", 0, "'a': 'dtype' cannot be 4"},
    {"DtypeList", R"({"a":{"dtype":["F32"]}})", 0, "'a': 'dtype' cannot be a list"},
    {"ShapeNegative",
     R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})",
     1,
     "'a': 'shape' cannot be -1"},
    {"ShapeFraction", R"({"a":{"dtype":"U8","shape":[1.5]}})", 0, "'a': 'shape' cannot be 1.5"},
    {"ShapeText", R"({"a":{"dtype":"U8","shape":["1"]}})", 0, "'a': 'shape' cannot be a string"},
    {"ShapeNested", R"({"a":{"dtype":"U8","shape":[[1]]}})", 0, "'a': 'shape' cannot be a list"},
    {"ShapeScalar", R"({"a":{"dtype":"U8","shape":1}})", 0, "'a': 'shape' cannot be 1"},
    {"ExtentHuge",
     R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}})",
     1,
     "'a': 'shape' cannot be 9223372036854775808"},
    {"ShapeOverflows",
     R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})",
     0,
     "tensor 'a': shape [4294967296, 4294967296] is more than 2^64 bytes"},
    {"DtypeSizeOverflows",
     R"({"a":{"dtype":"F64","shape":[4611686018427387904],"data_offsets":[0,0]}})",
     0,
     "more than 2^64 bytes"},
    {"OneOffset",
     R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})",
     1,
     "tensor 'a': data_offsets has 1 numbers, not 2"},
    {"Backwards",
     R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}})",
     2,
     "tensor 'a' at data offsets [2, 1) ends before it begins"},
    {"PastTheEnd",
     R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})",
     8,
     "tensor 'a' at data offsets [0, 9) ends past the data, which has 8 bytes"},
    {"OffsetsHuge",
     R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[9223372036854775806,9223372036854775807]}})",
     8,
     "ends past the data"},
    {"SizeIsNotShape",
     R"({"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,16]}})",
     16,
     "tensor 'a' at data offsets [0, 16) has 16 bytes, but BF16 [2, 2] takes 8"},
    {"Overlap",
     R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
     R"("b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
     7,
     "tensor 'b' at data offsets [3, 7) overlaps tensor 'a'"},
    {"SameBytes",
     R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
     R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
     4,
     "tensor 'b' at data offsets [0, 4) overlaps tensor 'a'"},
    {"Hole",
     R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
     R"("b":{"dtype":"U8","shape":[4],"data_offsets":[6,10]}})",
     10,
     "tensor 'b' at data offsets [6, 10) leaves a hole of 2 bytes before it"},
    {"HoleInFront",
     R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}})",
     5,
     "leaves a hole of 1 bytes before it"},
    {"TrailingBytes",
     R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
     7,
     "3 bytes from data offset 4 on are no tensor's"},
    {"MetadataList", R"({"__metadata__":[]})", 0, "'__metadata__' is a list, not an object"},
    {"MetadataNumber", R"({"__metadata__":{"a":1}})", 0, "'__metadata__': 'a' cannot be 1"},
    {"MetadataTwice", R"({"__metadata__":{},"__metadata__":{}})", 0, "appears twice"},
    {"NameWithEscapes", "{\"\\u001b[2J\":1}", 0, "'\\x1b[2J' is 1"},
};

INSTANTIATE_TEST_SUITE_P(Malformed,
                         SafetensorsHeaderRefuses,
                         ::testing::ValuesIn(kMalformed),
                         [](const auto& info) { return info.param.name; });

TEST(SafetensorsHeader, RefusesALengthThatCannotBe) {
  EXPECT_THAT(Message(""), HasSubstr("the file has 0 bytes, too few"));
  EXPECT_THAT(Message("1234567"), HasSubstr("the file has 7 bytes, too few"));
  EXPECT_THAT(Message(std::string(8, '\xff') + "{}"), HasSubstr("18446744073709551615 bytes"));
  EXPECT_THAT(Message(std::string("\x03\0\0\0\0\0\0\0{}", 10)),
              HasSubstr("the header of 3 bytes at offset 8 ends past the file's 10 bytes"));
}

TEST(SafetensorsHeader, SaysNoToEveryTruncation) {
  const std::string file = File(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})",
      11);
  ASSERT_TRUE(ParseSafetensorsHeader(Bytes(file)).ok());
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(ParseSafetensorsHeader(Bytes(file).subspan(0, size)).ok()) << size;
  }
}

TEST(SafetensorsHeader, AlignsTheDataThatItIsWrittenFor) {
  uint64_t data_size = 0;
  const auto header = SerializeSafetensorsHeader(
      {{.name = "a", .dtype = TensorDtype::kBf16, .shape = {3, 5}}}, {}, data_size);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(data_size, 30u);
  EXPECT_EQ(header->size() % 64, 0u);
}

TEST(SafetensorsHeader, CannotBeWrittenFromNonsense) {
  uint64_t data_size = 0;
  const auto message = [&](const std::vector<TensorSpec>& tensors) {
    return std::string(SerializeSafetensorsHeader(tensors, {}, data_size).status().message());
  };
  EXPECT_THAT(message({{.name = "a", .shape = {}}, {.name = "a", .shape = {}}}),
              HasSubstr("'a': the name is taken"));
  EXPECT_THAT(message({{.name = "__metadata__", .shape = {}}}), HasSubstr("the name is taken"));
  EXPECT_THAT(message({{.name = "a", .shape = {-2}}}), HasSubstr("negative extent -2"));
  EXPECT_THAT(message({{.name = "a", .shape = {INT64_MAX, 8}}}), HasSubstr("more than 2^64"));
  EXPECT_THAT(message({{.name = "\xff", .shape = {}}}), HasSubstr("must be UTF-8"));
}

}  // namespace
}  // namespace pregate
