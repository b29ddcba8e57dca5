// The position of an image in the encoder's square input.
#pragma once

#include <cstdint>

#include "manifest.h"

namespace glesam {

struct Size {
  std::int64_t height = 0, width = 0;  // pixels
};

struct Geometry {
  std::int64_t image_size = 0;  // S, the square's side
  Size resized;                 // the part of the square that the image fills, from its top left
  Size original;
};

// Returns the geometry of an image of size `original`.
Geometry geometry_of(Size original, const Preprocessing& rules);

}  // namespace glesam
