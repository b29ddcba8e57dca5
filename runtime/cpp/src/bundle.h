// Opening a bundle folder. Every byte is verified before an engine sees any of them.
#pragma once

#include <filesystem>
#include <string>

#include "input_limits.h"
#include "manifest.h"
#include "safetensors.h"

namespace glesam {

// A bundle whose files match its manifest.
struct Bundle {
  std::filesystem::path path;
  Manifest manifest;
  std::string sha256;  // hash of manifest.json, which contains the hashes of all other files

  // Returns the file that an engine loads for a stage.
  std::filesystem::path graph_path(Stage stage) const;
  std::filesystem::path golden_path() const { return path / manifest.golden.file; }
};

// Opens a bundle and verifies its manifest and the size, hash and external data of every file.
// Throws Error (bad_bundle) if a file is missing or altered, the manifest is malformed or has
// another version, a graph refers to data outside the folder, or the manifest exceeds its limit.
Bundle open_bundle(const std::string& folder, const Limits& limits = {});

// Returns the golden tensors by name: `image` is uint8 [H, W, 3], all others are float32. Throws
// Error (bad_bundle) if the file is not safetensors, a tensor is missing, or it exceeds its limit.
StoredTensors load_golden(const Bundle& bundle, const Limits& limits = {});

}  // namespace glesam
