// From raw pixels to the encoder's input tensor, bit for bit as the Python runtime makes it.
#pragma once

#include <vector>

#include "geometry.h"
#include "glesam.h"
#include "tensor.h"

namespace glesam {

// The largest image that is taken, as in the Python runtime.
inline constexpr std::int64_t kMaxPixels = std::int64_t{512} << 20;

// Throws Error (invalid_input): null, empty, too large, or a stride shorter than a row.
void check_image(const Image& image);

struct Preprocessed {
  std::vector<float> tensor;  // [3, S, S], normalised, zeros where the image does not reach
  Geometry geometry;
};

// Throws as check_image.
Preprocessed preprocess(const Image& image, const Preprocessing& rules);

}  // namespace glesam
