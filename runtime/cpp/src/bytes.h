// Bytes by offset, read through a window: a file that shrinks meanwhile is an error and not a fault
// of memory, as it would be with a mapping.
#pragma once

#include <cstdint>
#include <filesystem>
#include <istream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace glesam {

// A system error by its words: "No such file or directory".
class ReadError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Bytes {
 public:
  // Throws ReadError.
  explicit Bytes(const std::filesystem::path& path);
  explicit Bytes(std::unique_ptr<std::istream> stream);

  std::uint64_t size() const { return size_; }
  // offset < size(). Throws ReadError.
  std::uint8_t at(std::uint64_t offset) {
    if (offset < begin_ || offset - begin_ >= window_.size()) load(offset);
    return window_[offset - begin_];
  }
  // [offset, offset + count) must lie inside the file. Throws ReadError.
  void copy(std::uint64_t offset, std::uint64_t count, void* into);

 private:
  void load(std::uint64_t offset);

  std::unique_ptr<std::istream> stream_;
  std::uint64_t size_ = 0;
  std::uint64_t begin_ = 0;
  std::vector<std::uint8_t> window_;
};

// The whole of a file. Throws ReadError.
std::string read_file(const std::filesystem::path& path);

// Hex SHA-256 of a file, read in pieces. Throws ReadError.
std::string sha256_of(const std::filesystem::path& path);

}  // namespace glesam
