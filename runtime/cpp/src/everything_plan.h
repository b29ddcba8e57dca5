// Plans where everything-mode searches: its thresholds, its crops, and the points of each crop.
#pragma once

#include <vector>

#include "geometry.h"
#include "glesam_everything.h"
#include "manifest.h"

namespace glesam {

// A part of the image that is encoded and searched separately.
struct Crop {
  std::int64_t x0 = 0, y0 = 0, x1 = 0, y1 = 0;  // pixels; x1 and y1 are one past the last pixel
  std::size_t layer = 0;                        // 0 is the whole image
};

// The parameters without what they leave to the bundle.
struct SearchPlan {
  double pred_iou_thresh, stability_score_thresh, stability_score_offset;
  std::vector<Crop> crops;                 // the whole image, then those of each layer
  std::vector<std::vector<double>> grids;  // of each layer: x, y and so on, from 0 to 1
};

// Throws Error (invalid_input) if a parameter is outside its range, a layer has no points, or the image
// is too small for the layers.
SearchPlan plan_search(const EverythingParams& params, const Manifest& manifest, Size image);

}  // namespace glesam
