// What the element reads from frames and adds to them.
#pragma once

#include <gst/video/video.h>

#include <cstddef>

#include "glesam_c.h"
#include "segmenter.h"

namespace glesam_gst {

// Returns whether the library can convert frames of these caps.
bool is_convertible(const GstVideoInfo& info);

// Returns a view of a mapped frame, whose info is convertible.
glesam_frame frame_of(GstVideoFrame* frame);

// Adds the GstVideoRegionOfInterestMeta of object `number` to a buffer.
void attach(GstBuffer* buffer, const GstVideoInfo& info, std::size_t number, const Object& object);

}  // namespace glesam_gst
