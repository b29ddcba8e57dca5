// Antialiased bilinear resizing in the contract's two forms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "geometry.h"

namespace glesam {

// Interleaved RGB in memory.
struct Pixels {
  const std::uint8_t* data = nullptr;
  Size size;
  std::size_t stride = 0;  // bytes from a row to the next
};

// The neighbours each output pixel of an axis is made of.
template <typename Weight>
struct Taps {
  std::vector<std::int64_t> first, count;  // of each output
  std::vector<Weight> weights;             // `span` of each output, `count` of them used
  std::int64_t span = 0;
};

// pillow_bilinear: Pillow's, on uint8 with 22-bit weights and a rounding after each axis.
std::vector<std::uint8_t> resize_fixed_point(const Pixels& image, Size size);

// float_bilinear: the same triangle with weights that are multiples of 2^-28 and a rounding to
// 2^-17 after the width, so that every sum is exact in double whatever its order; then float32.
std::vector<float> resize_exact(const Pixels& image, Size size);

}  // namespace glesam
