// Reads safetensors files: an 8-byte length, a JSON header, then the tensors' bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bytes.h"

namespace glesam {

struct TensorEntry {
  std::string dtype;  // "F32", "U8"
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  // bytes, from the end of the header
};

// A tensor in memory.
struct StoredTensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> bytes;

  // Its values; throws std::runtime_error where the type is another.
  std::vector<float> floats() const;
};
using StoredTensors = std::map<std::string, StoredTensor>;

// Checks a header against the bytes that follow it: known types, sizes that match shapes, no hole,
// no overlap. Throws std::runtime_error saying what is wrong.
std::map<std::string, TensorEntry> parse_safetensors_header(std::string_view header,
                                                            std::uint64_t data_size);

// Throws std::runtime_error.
StoredTensors read_safetensors(Bytes& file);
StoredTensors read_safetensors(const std::filesystem::path& path);

}  // namespace glesam
