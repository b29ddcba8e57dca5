// One reader function for each record of the manifest.
#pragma once

#include "manifest.h"
#include "typed_json.h"

namespace glesam {

inline constexpr double kUnbounded = std::numeric_limits<double>::infinity();
inline constexpr Range kFraction{-kUnbounded, 0, 1, kUnbounded};

// All of these throw FieldError if a field is missing or wrong.
Manifest read_manifest(const Node& node);
FileRef read_file_ref(const Node& node);
Target read_target(const Node& node);
EnhancementGate read_gate(const Node& node);
std::map<char, AxisRange> read_profile(const Node& node);

// These check the informative records, which the library does not use, and keep nothing.
void check_provenance(const Node& node);
void check_parity(const Node& node);
void check_calibration(const Node& node);

// Returns the stage of a key. Throws FieldError, about the map `node`, for another key.
Stage stage_of(const Node& node, const std::string& key);

// Reads a string of 64 lower-case hex digits.
std::string read_sha256(const Node& node);

}  // namespace glesam
