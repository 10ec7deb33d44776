// Gives every committed input of one target to it: what fuzzing found once stays found. Where there
// is no libFuzzer, this is the target's main.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

void Feed(const std::string& input) {
  // Of its own size on the heap: AddressSanitizer sees a read behind its end.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  EXPECT_EQ(LLVMFuzzerTestOneInput(bytes.data(), bytes.size()), 0);
}

TEST(FuzzCorpusTest, EveryInputIsDealtWithWholeAndCut) {
  const std::string folder = PREGATE_SOURCE_DIR "/tests/fuzz/corpus/" PREGATE_FUZZ_TARGET;
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  ASSERT_FALSE(paths.empty()) << folder;
  Feed("");
  for (const std::string& path : paths) {
    SCOPED_TRACE(path);
    const std::string input = ReadFile(path);
    Feed(input);
    Feed(input.substr(0, input.size() / 2));
  }
}

}  // namespace
}  // namespace pregate
