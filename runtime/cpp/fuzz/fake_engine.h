// How the fuzzer makes the engine of fake_engine.cpp fail.
#pragma once

#include <atomic>

namespace glesam_fuzz {

enum Failure { kNone, kError, kMemory, kNotANumber };

// The failure of the next run of a graph.
extern std::atomic<int> failure;

}  // namespace glesam_fuzz
