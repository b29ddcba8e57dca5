// Does this machine compute what the exporter's did? The golden file, stage by stage and whole.
#pragma once

#include "engine.h"
#include "glesam.h"

namespace glesam {

// Fills everything but `info`. Throws Error: the golden file cannot be used, or the engine failed.
Selftest run_selftest(const Bundle& bundle, Engine& engine);

}  // namespace glesam
