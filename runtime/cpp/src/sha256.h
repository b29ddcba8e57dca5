// SHA-256 (FIPS 180-4), with the processor's own instructions where it has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace glesam {

class Sha256 {
 public:
  void update(const void* data, std::size_t size);
  // 64 hex digits of everything given so far. Call it once, last.
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

// The processor's own, or null where it has none: tests hold the two against each other.
Compress compress_native();

extern const std::uint32_t kRound[64];

}  // namespace sha256_detail
}  // namespace glesam
