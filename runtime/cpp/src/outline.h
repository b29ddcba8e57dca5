// Outlines a mask along the edges of its pixels, as the Python server's polygons do.
#pragma once

#include <cstdint>
#include <vector>

#include "glesam.h"

namespace glesam {

// Collects the corners of a mask from its rows. A corner is a grid point where a vertical edge of the
// outline ends. Where two pixels touch diagonally there are two corners.
class OutlineWriter {
 public:
  explicit OutlineWriter(std::size_t width);

  // Adds the next row, `width` bytes of 0 and 1.
  void add_row(const std::uint8_t* row);

  // Returns the rings when all rows are added. The even-odd rule fills them to the mask.
  std::vector<Ring> rings();

 private:
  std::vector<std::uint8_t> before_;   // the row above, with a pixel of background at each end
  std::vector<std::uint8_t> current_;  // likewise
  int y_ = 0;
  std::vector<Corner> single_, double_;
};

}  // namespace glesam
