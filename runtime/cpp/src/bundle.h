// Opening a bundle folder: nothing reaches an engine before every byte is the one exported.
#pragma once

#include <filesystem>
#include <string>

#include "manifest.h"
#include "safetensors.h"

namespace glesam {

// A bundle whose files have been checked against its manifest.
struct Bundle {
  std::filesystem::path path;
  Manifest manifest;
  std::string sha256;  // of manifest.json, which holds the hashes of all the others

  // The file an engine loads for a stage.
  std::filesystem::path graph_path(Stage stage) const;
  std::filesystem::path golden_path() const { return path / manifest.golden.file; }
};

// Opens a bundle and verifies all of it: manifest, sizes, hashes, external data. Throws Error
// (bad_bundle) for anything missing, altered, of another version, or reaching outside the folder.
Bundle open_bundle(const std::string& folder);

// The golden tensors by name: `image` uint8 [H, W, 3], all others float32. Throws Error
// (bad_bundle) where the file is not safetensors or lacks a tensor.
StoredTensors load_golden(const Bundle& bundle);

}  // namespace glesam
