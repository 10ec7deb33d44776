// A device profile as a configuration file.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/base/options.h"
#include "core/pregate.h"

namespace pregate {

// Values of flags by their names in the configuration file.
using Settings = std::map<std::string, std::string>;

// `flags`, which also note in `given` the last value that each was set to. `given` outlives them.
std::vector<Flag> NoteSettings(std::vector<Flag> flags, Settings& given);

// pregate.v1.Config in text format: what `given` says, with the recommended settings in the place
// of its own; the measurements and each setting's reason are comments.
std::string FormatProfileConfig(const Engine::Profile& profile, const Settings& given);

}  // namespace pregate
