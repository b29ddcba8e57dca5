// Checks the layout of frames and reads them as RGB.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
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

// The rows of one plane, from the top row down.
struct PlaneRows {
  const std::uint8_t* top = nullptr;
  std::ptrdiff_t stride = 0;  // bytes; negative if the rows are stored bottom first
  const std::uint8_t* operator[](std::ptrdiff_t y) const { return top + y * stride; }
};

// A frame whose planes can be read within its region.
struct CheckedFrame {
  Region region;
  std::array<PlaneRows, 3> planes;  // as many as the format has
};

// Checks everything about a frame but whether its memory is there. Throws Error (invalid_input) if a
// frame is empty, its region lies outside it or is too large, a plane is null, or rows overlap or fit
// in no memory.
CheckedFrame check_frame(const Frame& frame, const Limits& limits);

// Where the samples of a packed format are in the bytes of a pixel.
struct PackedPixel {
  int bytes, red, green, blue;
};
// Returns nothing for the formats of several planes.
std::optional<PackedPixel> packed_pixel(Format format);

// The bytes of a plane from its first to its last one, in memory order.
struct PlaneBytes {
  const std::uint8_t* first = nullptr;
  std::uint64_t count = 0;
};
// Returns them for each plane of a frame that check_frame accepts.
std::vector<PlaneBytes> plane_bytes(const Frame& frame);

// The RGB pixels of a frame's region.
struct RgbPixels {
  Pixels pixels;  // in the frame's own memory if that is RGB, else in `converted`
  std::vector<std::uint8_t> converted;
};

// Converts the region of a frame in the host's memory to RGB. Throws the errors of check_frame, and
// Error (invalid_input) for a frame in CUDA memory.
RgbPixels rgb_of(const Frame& frame, const Limits& limits);

// Returns the bytes of all samples of a frame in the host's memory, plane by plane, without those between the rows. Throws
// what rgb_of throws for a frame whose planes cannot be read.
std::vector<std::uint8_t> bytes_of(const Frame& frame);

}  // namespace glesam
