// Computes the encoder's input tensor from raw pixels, with the same bits as the Python runtime.
#pragma once

#include <vector>

#include "geometry.h"
#include "glesam.h"
#include "tensor.h"

namespace glesam {

// The largest image that is accepted, as in the Python runtime.
inline constexpr std::int64_t kMaxPixels = std::int64_t{512} << 20;

// Throws Error (invalid_input) if an image is null, empty or too large, or its stride is shorter
// than a row.
void check_image(const Image& image);

struct Preprocessed {
  std::vector<float> tensor;  // [3, S, S], normalised; zeros beside the image
  Geometry geometry;
};

// Resizes, normalises and pads an image. Throws the errors of check_image.
Preprocessed preprocess(const Image& image, const Preprocessing& rules);

}  // namespace glesam
