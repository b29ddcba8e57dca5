// Reading and checking manifest.json.
#pragma once

#include <string>
#include <string_view>

#include "manifest.h"

namespace glesam {

// Reads and checks the bytes of manifest.json; `where` is its path, for error messages. Throws Error
// (bad_bundle) if it is not JSON, is not a glesam bundle, has another version, requires an unknown
// feature, or has a missing or wrong field.
Manifest parse_manifest(std::string_view raw, const std::string& where);

// Throws Error (bad_bundle) for what the types cannot express, such as a missing stage or a shape
// that is wrong.
void check_consistency(const Manifest& manifest, const std::string& where);

}  // namespace glesam
