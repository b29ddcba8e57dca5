// Compares this machine's results with a bundle's golden file, for each stage and for the whole
// chain.
#pragma once

#include "engine.h"
#include "glesam.h"

namespace glesam {

// Returns the result with an empty `info`. Throws Error if the golden file cannot be used or the
// engine fails.
Selftest run_selftest(const Bundle& bundle, Engine& engine, const Limits& limits);

}  // namespace glesam
