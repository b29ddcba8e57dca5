// Converts YUV to RGB by the formula in glesam.h, exactly.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "glesam.h"

namespace glesam {

// Holds the terms of the formula for one matrix and range.
class YuvToRgb {
 public:
  YuvToRgb(YuvMatrix matrix, YuvRange range);

  // The terms that a sample of U and V adds to each channel of all pixels that it covers.
  struct Chroma {
    std::int64_t red, green, blue;
  };
  Chroma chroma(std::uint8_t u, std::uint8_t v) const {
    return {red_[v], green_u_[u] + green_v_[v], blue_[u]};
  }

  // Writes the RGB of a pixel to `rgb`.
  void write(std::uint8_t y, const Chroma& terms, std::uint8_t* rgb) const {
    rgb[0] = to_byte(luma_[y] + terms.red);
    rgb[1] = to_byte(luma_[y] + terms.green);
    rgb[2] = to_byte(luma_[y] + terms.blue);
  }

  // The tables that other processors need for the same results, 256 terms each: luma, red, green by U,
  // green by V, and blue.
  std::vector<std::int64_t> tables() const {
    std::vector<std::int64_t> all;
    for (const Terms* table : {&luma_, &red_, &green_u_, &green_v_, &blue_}) {
      all.insert(all.end(), table->begin(), table->end());
    }
    return all;
  }

  // The terms are integers with this many fraction bits, rounded down. luma_ also has one half, for
  // rounding, and as many units as the terms can lose. The exact sum is a fraction whose denominator
  // is below 2^43, so it is never this close below an integer, and the result is the exact one.
  static constexpr int kBits = 50;

 private:
  static std::uint8_t to_byte(std::int64_t sum) {
    const std::int64_t value = sum >> kBits;
    return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
  }

  using Terms = std::array<std::int64_t, 256>;
  Terms luma_, red_, green_u_, green_v_, blue_;
};

}  // namespace glesam
