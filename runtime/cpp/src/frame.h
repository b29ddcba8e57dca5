// Checks the layout of frames and reads them as RGB.
#pragma once

#include <vector>

#include "glesam.h"
#include "input_limits.h"
#include "resample.h"

namespace glesam {

// Returns the frame of an image. Throws Error (invalid_input) if the image's stride is not usable.
Frame frame_of(const Image& image);

// Returns the region of a frame, which lies inside it; without one the whole frame. Throws Error
// (invalid_input) if the frame is empty or does not contain the region.
Region checked_region(const Frame& frame);

// The RGB pixels of a frame's region.
struct RgbPixels {
  Pixels pixels;  // in the frame's own memory if that is RGB, else in `converted`
  std::vector<std::uint8_t> converted;
};

// Converts a frame's region to RGB. Throws Error (invalid_input) if a frame is empty, its region
// lies outside it or is too large, a plane is null, or rows overlap or fit in no memory.
RgbPixels rgb_of(const Frame& frame, const Limits& limits);

// Returns the bytes of all samples of a frame, plane by plane, without those between the rows. Throws
// what rgb_of throws for a frame whose planes cannot be read.
std::vector<std::uint8_t> bytes_of(const Frame& frame);

}  // namespace glesam
