// Everything-mode: masks of all objects in an image, from a grid of points. Names, defaults, results and
// meaning are those of Python's GleSamMaskGenerator, which follows segment_anything's.
//
//     std::vector<glesam::Record> records;
//     glesam::Status status = predictor->segment_everything(frame, {}, &records);
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "glesam.h"

namespace glesam {

// How densely to search an image and which masks to keep.
struct EverythingParams {
  int points_per_side = 32;   // points along each side of the grid over the image
  int points_per_batch = 64;  // maximum number of points per decoder call, as max_prompt_batch
  std::optional<double> pred_iou_thresh;  // keep masks whose predicted IoU is greater, 0 to 1; 0 keeps
                                          // all. No value: the bundle's, or 0.88
  std::optional<double> stability_score_thresh;  // keep masks whose stability is at least this, 0 to
                                                 // 1. No value: the bundle's, or 0.95
  std::optional<double> stability_score_offset;  // offset of that stability in logits. No value: the
                                                 // bundle's, or 1
  double box_nms_thresh = 0.7;  // IoU of two masks' boxes above which the mask of lower predicted IoU
                                // is dropped as a duplicate
  int crop_n_layers = 0;        // layer n searches 4^n overlapping crops, which finds small objects
  double crop_nms_thresh = 0.7;  // as box_nms_thresh, of masks from different crops; the mask from the
                                 // larger crop is dropped
  double crop_overlap_ratio = 512.0 / 1500;  // overlap of the crops in layer 1, as a share of the
                                             // shorter side; each further layer halves it
  int crop_n_points_downscale_factor = 1;    // each layer has this many times fewer points per side
  std::vector<std::vector<double>> point_grids;  // replaces points_per_side: for each layer x0, y0, x1,
                                                 // y1 and so on, from 0 to 1 of a crop's size
  int min_mask_region_area = 0;  // fill holes and remove islands of fewer pixels
  bool masks = false;            // also fill Record::mask
};

// A mask and its description.
struct Record {
  std::string rle;                 // "counts" of COCO's compressed RLE, whose "size" is [H, W]
  std::vector<std::uint8_t> mask;  // [H, W]: 1 inside the mask; empty unless EverythingParams::masks
  std::int64_t area = 0;           // pixels
  Region bbox;  // x and y of the first pixel, last column - first column, last row - first row. The
                // last two are one less than a width and height, as in segment_anything
  double predicted_iou = 0;
  double stability_score = 0;
  double point_x = 0, point_y = 0;  // the prompt, in pixels of the image
  Region crop_box;                  // the crop in which the mask was found
};

}  // namespace glesam
