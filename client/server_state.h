// What pregate models and stats print.
#pragma once

#include <string>

#include "pregate/v1/admin.pb.h"
#include "pregate/v1/inference.pb.h"

namespace pregate {

// A table with a line for each model.
std::string FormatModels(const v1::ListModelsResponse& response);

// A table with a line for each of server, model, requests and KV blocks.
std::string FormatStats(const v1::GetServerInfoResponse& info, const v1::GetLoadResponse& load);

// Lines for the expert cache: slots, look-ups, what was loaded and prefetched, speculation; and
// where `cache` has layers a table of them.
std::string FormatExpertCache(const v1::GetExpertCacheResponse& cache);

}  // namespace pregate
