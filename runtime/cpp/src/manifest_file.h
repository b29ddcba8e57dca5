// Reads and checks manifest.json.
#pragma once

#include <string>
#include <string_view>

#include "manifest.h"

namespace glesam {

// Reads and checks a manifest; `where` names it in errors. Throws Error (bad_bundle): not JSON, not
// a glesam bundle, another version, or a field amiss.
Manifest parse_manifest(std::string_view raw, const std::string& where);

// What the types cannot say: a missing stage, or shapes that are not the contract's.
void check_consistency(const Manifest& manifest, const std::string& where);

}  // namespace glesam
