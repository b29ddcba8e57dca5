// Where an ONNX file wants its weights from, read without an engine.
//
// An ONNX graph may name any path of the machine as external data, so the names are read before an
// engine opens the file. Only lengths and the few fields on the way to a name are decoded; weights
// are skipped, so a file of gigabytes costs milliseconds.
#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "bytes.h"

namespace glesam {

// Every location that a tensor of an ONNX file names as external data; "" stands for a tensor that
// is marked external and names none. Throws Error (bad_bundle) for what is not an ONNX protobuf.
std::set<std::string> external_data_locations(const std::filesystem::path& path);
// The same of open bytes, which `where` names in errors.
std::set<std::string> external_data_locations(Bytes& bytes, const std::string& where);

}  // namespace glesam
