#include "tests/support/test_pack.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>

#include "core/base/check.h"

namespace pregate {
namespace {

// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t Mix(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

std::vector<std::byte> TestRecord(uint64_t record_bytes,
                                  uint32_t layer,
                                  uint32_t expert,
                                  uint64_t seed) {
  uint64_t state = seed;
  state = Mix(state) ^ (uint64_t{layer} << 32 | expert);
  std::vector<std::byte> content(record_bytes);
  for (size_t i = 0; i < content.size(); i += sizeof(uint64_t)) {
    const uint64_t bits = Mix(state);
    std::memcpy(&content[i], &bits, std::min(sizeof(bits), content.size() - i));
  }
  return content;
}

std::string WriteTestPack(const std::string& path, const ExpertPackHeader& header, uint64_t seed) {
  auto writer = ExpertPackWriter::Create(path, header);
  PREGATE_CHECK(writer.ok(), writer.status().ToString());
  const uint64_t num_records = uint64_t{header.num_layers} * header.num_experts;
  for (uint64_t i = (*writer)->num_written(); i < num_records; ++i) {
    const absl::Status appended =
        (*writer)->Append(TestRecord(header.record_bytes,
                                     static_cast<uint32_t>(i / header.num_experts),
                                     static_cast<uint32_t>(i % header.num_experts),
                                     seed));
    PREGATE_CHECK(appended.ok(), appended.ToString());
  }
  const absl::Status finished = (*writer)->Finish();
  PREGATE_CHECK(finished.ok(), finished.ToString());
  return path;
}

void FlipBit(const std::string& path, uint64_t offset, int bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ (1 << bit)));
  file.flush();
  PREGATE_CHECK(file.good(), path, " at ", offset);
}

}  // namespace pregate
