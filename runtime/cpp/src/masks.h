// From the decoder's low-resolution logits to masks of the original image.
//
// SAM's upscaling is two bilinear steps with the padding cropped between them, SAM 2's is one. Each
// is linear and works on rows and columns apart, so all fold into a few weights an output pixel and
// axis; the float logits of a huge image never exist at once unless asked for.
#pragma once

#include <cstdint>
#include <vector>

#include "geometry.h"
#include "manifest.h"

namespace glesam {

struct Decoded {
  std::size_t batch = 0, masks = 0, side = 0;  // B, C, S/4
  std::vector<float> low_res;                  // [B, C, S/4, S/4], logits
  std::vector<float> iou;                      // [B, C]
};

// Of the decoder's four masks the one that the rules name, or with `multimask` all but the first.
Decoded choose(const Decoded& all, bool multimask, const Postprocessing& rules);

// Logits as a later call takes them for its mask prompt: clipped where the rules say so.
void limit_for_mask_input(std::vector<float>& low_res, const Postprocessing& rules);

// How each output pixel of an axis is made of the S/4 logits of a row or column.
struct AxisWeights {
  std::vector<std::int32_t> first;
  std::vector<float> weights;  // `span` of each output
  std::size_t span = 0;        // 2 to 4
};

// Makes masks of one image, one at a time; built once an image.
class Upscaler {
 public:
  Upscaler(const Geometry& geometry, const Postprocessing& rules);

  // Logits at the original image's size: [S/4, S/4] -> [H, W].
  void logits(const float* low_res, float* out) const;
  // A mask of 0 and 1, [H, W], and its stability: area above threshold + offset over area above
  // threshold - offset; 0 where none is. `mask` may be null.
  double binarize(const float* low_res, std::uint8_t* mask) const;

 private:
  template <typename Row>
  void rows(const float* low_res, Row&& row) const;

  std::size_t side_, height_, width_;
  float threshold_, above_, below_;
  AxisWeights down_, across_;
};

}  // namespace glesam
