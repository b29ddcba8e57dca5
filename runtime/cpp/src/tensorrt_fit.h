// Checks whether engine files run on this machine before they are deserialized, so that the error
// can say what does not match.
#pragma once

#include <string>

#include "bundle.h"

namespace glesam {

// Throws Error (backend) unless the engines run on this system with the library `version`. That is
// the version that built them or, for version-compatible engines, also a later one up to the next
// major version.
void check_library(const Bundle& bundle, const std::string& version);

// Throws Error (backend) unless the engines run on this GPU. `here` is its compute capability, such
// as "8.9".
void check_gpu(const Bundle& bundle, const std::string& here);

}  // namespace glesam
