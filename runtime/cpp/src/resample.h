// Antialiased resizing, in the three kernels of the contract.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "geometry.h"

namespace glesam {

// An interleaved RGB image in memory.
struct Pixels {
  const std::uint8_t* data = nullptr;  // the top row
  Size size;
  std::ptrdiff_t stride = 0;  // bytes from one row to the next lower one; may be negative

  const std::uint8_t* row(std::int64_t y) const {
    return data + static_cast<std::ptrdiff_t>(y) * stride;
  }
};

// The input pixels, and their weights, that make each output pixel of an axis.
template <typename Weight>
struct Taps {
  std::vector<std::int64_t> first, count;  // for each output: its first input, its inputs
  std::vector<Weight> weights;             // `span` for each output, of which `count` are used
  std::int64_t span = 0;
};

// pillow_bilinear and pillow_bicubic.
enum class FixedPoint { bilinear, bicubic };

inline constexpr int kFixedPointBits = 22;  // fraction bits of a weight; 8 bits of pixel and 2 of
                                            // headroom make 32

// Returns what makes each output pixel of an axis.
Taps<std::int32_t> fixed_point_taps(std::int64_t size_in, std::int64_t size_out, FixedPoint kernel);
Taps<double> exact_taps(std::int64_t size_in, std::int64_t size_out);

// resize_fixed_point rounds its result between the axes, so their order matters.
bool resizes_height_first(Size from, Size to);

// Pillow's filters on uint8. Weights have 22 fraction bits, and each axis rounds its result to
// uint8.
std::vector<std::uint8_t> resize_fixed_point(const Pixels& image, Size size, FixedPoint kernel);

// float_bilinear: the triangle filter of pillow_bilinear in double. Weights are multiples of 2^-28,
// and the result of the first axis, the width, is rounded to multiples of 2^-17. So every sum is
// exact in any order. The result is float32.
std::vector<float> resize_exact(const Pixels& image, Size size);

}  // namespace glesam
