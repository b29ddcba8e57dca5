// SHA-256 (FIPS 180-4). It uses the processor's SHA instructions if there are any.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace glesam {

class Sha256 {
 public:
  void update(const void* data, std::size_t size);
  // Returns the hash of all data as 64 hex digits. Call it once, after the last update.
  std::string hex();

 private:
  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> pending_{};
  std::size_t pending_size_ = 0;
  std::uint64_t total_ = 0;  // bytes
};

namespace sha256_detail {

using Compress = void (*)(std::uint32_t state[8], const std::uint8_t* blocks, std::size_t count);

void compress_portable(std::uint32_t state[8], const std::uint8_t* blocks, std::size_t count);

// Returns the version with SHA instructions, or null if the processor has none. Tests compare the
// two versions.
Compress compress_native();

extern const std::uint32_t kRound[64];

}  // namespace sha256_detail
}  // namespace glesam
