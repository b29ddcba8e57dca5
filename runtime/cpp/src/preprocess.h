// Computes the encoder's input tensor from raw pixels, with the same bits as the Python runtime.
#pragma once

#include <vector>

#include "frame.h"
#include "geometry.h"
#include "glesam.h"
#include "input_limits.h"
#include "tensor.h"

namespace glesam {

struct Preprocessed {
  std::vector<float> tensor;  // [3, S, S], normalised; zeros beside the image
  Geometry geometry;
};

// Resizes, normalises and pads an image. Throws the errors of check_frame.
Preprocessed preprocess(const Frame& frame, const Preprocessing& rules, const Limits& limits);

}  // namespace glesam
