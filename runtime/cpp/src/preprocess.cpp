#include "preprocess.h"

#include <algorithm>
#include <limits>

#include "errors.h"
#include "resample.h"
#include "text.h"

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

void check_image(const Image& image, const Limits& limits) {
  const std::string size = cat(image.width, " x ", image.height, " pixels");
  if (image.width <= 0 || image.height <= 0) {
    input_error(cat("image: ", size, ", but it needs at least 1 x 1"));
  }
  const auto width = static_cast<std::uint64_t>(image.width);
  const auto height = static_cast<std::uint64_t>(image.height);
  check_limit(kSide, limits, std::max(width, height), cat("image: ", size));
  check_limit(kMegapixels, limits, width * height, cat("image: ", size));
  if (image.rgb == nullptr) input_error(cat("image: a null pointer for ", size));
  // Both factors are below 2^33, so this and the product below fit 64 bits.
  const std::uint64_t row = width * 3;
  const std::uint64_t stride = image.stride != 0 ? image.stride : row;
  if (stride < row) {
    input_error(cat("image: a stride of ", stride, " bytes, but a row of ", width,
                    " RGB pixels has ", row));
  }
  // A negative number becomes a large one where the caller converts it to size_t.
  if (image.stride > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    input_error(cat("image: a stride of ", image.stride,
                    " bytes, more than 2147483647; pass the top row first, since negative strides "
                    "are not supported"));
  }
  if ((height - 1) * stride + row > static_cast<std::uint64_t>(PTRDIFF_MAX)) {
    input_error(cat("image: ", height, " rows with a stride of ", stride,
                    " bytes fit in no memory; check the stride"));
  }
}

Preprocessed preprocess(const Image& image, const Preprocessing& rules, const Limits& limits) {
  check_image(image, limits);
  const std::size_t row = static_cast<std::size_t>(image.width) * 3;
  Pixels pixels{image.rgb, {image.height, image.width}, image.stride ? image.stride : row};
  const Geometry geometry = geometry_of(pixels.size, rules);
  std::vector<std::uint8_t> first;
  if (rules.first_size != 0) {
    const Size square{rules.first_size, rules.first_size};
    first = resize_fixed_point(pixels, square, FixedPoint::bicubic);
    pixels = {first.data(), square, static_cast<std::size_t>(square.width) * 3};
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
