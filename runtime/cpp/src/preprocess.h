// Computes the encoder's input tensor from raw pixels, with the same bits as the Python runtime.
#pragma once

#include <vector>

#include "geometry.h"
#include "glesam.h"
#include "limits.h"
#include "tensor.h"

namespace glesam {

// Throws Error (invalid_input) if an image is null, empty or too large, if its stride is shorter
// than a row or negative, or if its rows fit in no memory.
void check_image(const Image& image, const Limits& limits);

struct Preprocessed {
  std::vector<float> tensor;  // [3, S, S], normalised; zeros beside the image
  Geometry geometry;
};

// Resizes, normalises and pads an image. Throws the errors of check_image.
Preprocessed preprocess(const Image& image, const Preprocessing& rules, const Limits& limits);

}  // namespace glesam
