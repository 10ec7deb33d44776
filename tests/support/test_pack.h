// Packs of random experts, whose content a test can work out again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/storage/expert_pack.h"

namespace pregate {

// The content [record_bytes] of an expert: bytes of a generator that depend on nothing else than
// the arguments, and differ between any two experts or seeds.
std::vector<std::byte> TestRecord(uint64_t record_bytes,
                                  uint32_t layer,
                                  uint32_t expert,
                                  uint64_t seed = 1);

// Writes a pack of such experts to `path`, behind what an earlier writer left, and returns `path`.
std::string WriteTestPack(const std::string& path,
                          const ExpertPackHeader& header,
                          uint64_t seed = 1);

// Inverts bit `bit` of the byte at `offset` of a file, as a failing disk might.
void FlipBit(const std::string& path, uint64_t offset, int bit);

}  // namespace pregate
