// What an operator may write: the input as the daemon's configuration file, and as the value of
// every flag.
#include "server/config.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pregate;
  const absl::string_view input = TextOf(data, size);
  const InputFile file(input);
  ServerOptions options;
  const std::vector<Flag> flags = ServerFlags(options);
  if (ApplyConfigFile(file.path(), flags).ok()) {
    ValidateOptions(options).IgnoreError();
    ServerOptions twice = options;
    const absl::Status status = ApplyConfigFile(file.path(), ServerFlags(twice));
    PREGATE_CHECK(status.ok(), status.message());
  }
  for (const Flag& flag : flags) {
    if (flag.set(input).ok()) ValidateOptions(options).IgnoreError();
  }
  if (const absl::StatusOr<Address> address = ParseAddress(input); address.ok()) {
    PREGATE_CHECK(!address->host.empty() && address->host.size() < size, address->host);
  }
  return 0;
}
