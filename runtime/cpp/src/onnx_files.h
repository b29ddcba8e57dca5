// Finds the files from which an ONNX graph takes its weights, without an engine.
//
// An ONNX graph can name any path of the machine as external data, so the names are checked before
// an engine opens the file. Only lengths and the fields that lead to a name are decoded. Weights are
// skipped, so that a file of gigabytes takes milliseconds.
#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "bytes.h"

namespace glesam {

// Returns every location that a tensor of an ONNX file names as external data, and "" if a tensor is
// marked external but names no location. Throws Error (bad_bundle) if the file is not an ONNX
// protobuf.
std::set<std::string> external_data_locations(const std::filesystem::path& path);
// Does the same for an open file. `where` is its name for error messages.
std::set<std::string> external_data_locations(Bytes& bytes, const std::string& where);

}  // namespace glesam
