// Searches an image for masks: prompts a grid, filters the masks, drops duplicates, tidies up.
#pragma once

#include <functional>
#include <vector>

#include "everything_plan.h"
#include "masks.h"
#include "spans.h"
#include "stop.h"

namespace glesam {

// What the search needs of a session.
struct CropSearch {
  Geometry geometry;
  std::function<Decoded(const Prompts&)> decode;  // three masks for each prompt
};

// Returns the masks of everything in an image of this size.
// encode: encodes a crop of the image; the first one is the whole image.
// Throws the errors of plan_search, of `encode`, and of Stop::check.
std::vector<Record> search_image(const EverythingParams& params, const Manifest& manifest, Size image,
                                 const std::function<CropSearch(const Crop&)>& encode,
                                 const Stop& stop);

}  // namespace glesam
