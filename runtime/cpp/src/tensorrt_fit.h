// Whether engine files run here, found out before one is deserialized, so that the mismatch is named.
#pragma once

#include <string>

#include "bundle.h"

namespace glesam {

// An engine file runs on the system and the version it was built on, or, where it was built so, on
// later versions up to the next major one. `version` is the library's. Throws Error (backend).
void check_library(const Bundle& bundle, const std::string& version);

// It runs on the GPUs it was built for, `here` being this one's compute capability, "8.9". Throws
// Error (backend).
void check_gpu(const Bundle& bundle, const std::string& here);

}  // namespace glesam
