// Random access to the bytes of a file through a buffer. If the file shrinks meanwhile, that is an
// error that can be caught, while access to a memory mapping would crash.
#pragma once

#include <cstdint>
#include <filesystem>
#include <istream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace glesam {

// A system error with the system's message, such as "No such file or directory".
class ReadError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Bytes {
 public:
  // Throws ReadError.
  explicit Bytes(const std::filesystem::path& path);
  explicit Bytes(std::unique_ptr<std::istream> stream);

  std::uint64_t size() const { return size_; }
  // Returns one byte. `offset` must be less than size(). Throws ReadError.
  std::uint8_t at(std::uint64_t offset) {
    if (offset < begin_ || offset - begin_ >= window_.size()) load(offset);
    return window_[offset - begin_];
  }
  // Copies [offset, offset + count), which must lie inside the file. Throws ReadError.
  void copy(std::uint64_t offset, std::uint64_t count, void* into);

 private:
  void load(std::uint64_t offset);

  std::unique_ptr<std::istream> stream_;
  std::uint64_t size_ = 0;
  std::uint64_t begin_ = 0;
  std::vector<std::uint8_t> window_;
};

// Returns the content of a file. Throws ReadError.
std::string read_file(const std::filesystem::path& path);

// Returns the SHA-256 of a file in hex digits. Throws ReadError.
std::string sha256_of(const std::filesystem::path& path);

}  // namespace glesam
