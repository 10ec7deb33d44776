// The flags of a generation, which write straight into its request.
#pragma once

#include "CLI/CLI.hpp"
#include "pregate/v1/inference.pb.h"

namespace pregate {

// Adds --model, --max-tokens, --temperature … to `app`. What is not given stays unset in `request`,
// which must outlive `app`. Numbers are read here; whether they make sense the server says.
void AddRequestFlags(CLI::App& app, v1::GenerateRequest& request);

}  // namespace pregate
