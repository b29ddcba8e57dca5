// Draws masks over a video frame, in place.
#pragma once

#include <gst/video/video.h>

#include <cstdint>

namespace glesam_gst {

// Tints the area of a mask and draws its edge in white.
//
// frame: RGB, BGR or NV12, mapped for writing.
// mask: [H, W] of the frame's size, 1 inside the mask, 0 outside.
// object: selects the colour.
void draw_mask(GstVideoFrame* frame, const std::uint8_t* mask, std::size_t object);

}  // namespace glesam_gst
