// LibTorch on the CPU: which instructions and how many threads it may use.
#pragma once

#include <cstdint>

#include "core/kernel/cpu_isa.h"
#include "core/kernel/parallel_for.h"

namespace pregate {

// Keeps LibTorch, oneDNN and MKL to the instructions of `isa`, by the environment variables that
// they read. Works only before the first product of the process; a variable that is set already
// stays.
void LimitLibTorch(CpuIsa isa);

// Threads for --threads: `flag` or, when that is 0, as many as pay for a model of which a token
// reads `bytes_per_token` of weights, at most one for each CPU.
uint32_t ChooseThreads(uint32_t flag, uint64_t bytes_per_token);

// Lets LibTorch use `num_threads` threads for work that the calling thread starts.
void UseThreads(uint32_t num_threads);

// A loop on LibTorch's threads, so that kernels and products share one pool.
ParallelFor LibTorchParallelFor();

}  // namespace pregate
