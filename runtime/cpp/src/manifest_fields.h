// The manifest's records, a function each, in the order of the contract's classes.
#pragma once

#include "manifest.h"
#include "typed_json.h"

namespace glesam {

// These throw FieldError.
Manifest read_manifest(const Node& node);
FileRef read_file_ref(const Node& node, const char* expected = "object");
Target read_target(const Node& node);
std::map<char, AxisRange> read_profile(const Node& node);

// What a program that runs a bundle passes by, but may not be malformed either.
void check_provenance(const Node& node);
void check_parity(const Node& node);
void check_calibration(const Node& node);

// A string of 64 lower-case hex digits.
std::string read_sha256(const Node& node, const char* expected = "str");

}  // namespace glesam
