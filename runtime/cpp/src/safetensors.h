// Reads safetensors files: an 8-byte length, a JSON header and the bytes of the tensors.
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
  std::uint64_t begin = 0, end = 0;  // byte offsets from the end of the header
};

// A tensor in memory.
struct StoredTensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> bytes;

  // Returns the values of an F32 tensor. Throws std::runtime_error for another type.
  std::vector<float> floats() const;
};
using StoredTensors = std::map<std::string, StoredTensor>;

// Parses a header and checks it against the number of bytes that follow: types must be known, sizes
// must match shapes, and tensors must fill the file without gaps and overlaps. Throws
// std::runtime_error that says what is wrong.
std::map<std::string, TensorEntry> parse_safetensors_header(std::string_view header,
                                                            std::uint64_t data_size);

inline constexpr std::uint64_t kMaxHeader = 100'000'000;  // bytes; the format's own limit

// Reads all tensors of a file. Throws std::runtime_error if it cannot be read or is malformed, or
// if its header has more than `max_header` bytes.
StoredTensors read_safetensors(Bytes& file, std::uint64_t max_header = kMaxHeader);
StoredTensors read_safetensors(const std::filesystem::path& path);

}  // namespace glesam
