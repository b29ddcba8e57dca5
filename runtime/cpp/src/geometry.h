// How an image lies in the graph's square.
#pragma once

#include <cstdint>

#include "manifest.h"

namespace glesam {

struct Size {
  std::int64_t height = 0, width = 0;  // pixels
};

struct Geometry {
  std::int64_t image_size = 0;  // S, the square's side
  Size resized;                 // what the image fills of the square, from its top left corner
  Size original;
};

Geometry geometry_of(Size original, const Preprocessing& rules);

}  // namespace glesam
