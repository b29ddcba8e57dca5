#include "preprocess.h"

#include <algorithm>

#include "resample.h"

namespace glesam {
namespace {

// Rounds half up, but to at least 1, so that an image 20,000 times as wide as high keeps a row.
std::int64_t rounded(std::int64_t side, double scale) {
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(side * scale + 0.5));
}

// Interleaved values [h, w, 3] -> normalised planes of [3, S, S].
template <typename Value>
void normalise(const std::vector<Value>& values, Size size, const Preprocessing& rules,
               std::vector<float>& tensor) {
  const std::int64_t side = rules.image_size;
  for (int channel = 0; channel < 3; ++channel) {
    const float mean = rules.mean[channel], std = rules.std[channel];
    for (std::int64_t y = 0; y < size.height; ++y) {
      const Value* from = values.data() + y * size.width * 3 + channel;
      float* to = tensor.data() + (channel * side + y) * side;
      for (std::int64_t x = 0; x < size.width; ++x) {
        to[x] = (static_cast<float>(from[3 * x]) - mean) / std;
      }
    }
  }
}

}  // namespace

Geometry geometry_of(Size original, const Preprocessing& rules) {
  const std::int64_t size = rules.image_size;
  if (rules.square) return {size, {size, size}, original};
  const double scale =
      static_cast<double>(size) / static_cast<double>(std::max(original.height, original.width));
  return {size, {rounded(original.height, scale), rounded(original.width, scale)}, original};
}

Preprocessed preprocess(const Frame& frame, const Preprocessing& rules, const Limits& limits) {
  const RgbPixels rgb = rgb_of(frame, limits);
  Pixels pixels = rgb.pixels;
  const Geometry geometry = geometry_of(pixels.size, rules);
  std::vector<std::uint8_t> first;
  if (rules.first_size != 0) {
    const Size square{rules.first_size, rules.first_size};
    first = resize_fixed_point(pixels, square, FixedPoint::bicubic);
    pixels = {first.data(), square, static_cast<std::ptrdiff_t>(square.width) * 3};
  }
  std::vector<float> tensor(elements({3, rules.image_size, rules.image_size}));
  if (rules.float_kernel) {
    normalise(resize_exact(pixels, geometry.resized), geometry.resized, rules, tensor);
  } else {
    normalise(resize_fixed_point(pixels, geometry.resized, FixedPoint::bilinear), geometry.resized,
              rules, tensor);
  }
  return {std::move(tensor), geometry};
}

}  // namespace glesam
