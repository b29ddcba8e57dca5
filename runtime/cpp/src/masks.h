// Computes masks of the original image from the decoder's low-resolution logits.
//
// SAM upscales in two bilinear steps and crops the padding between them; SAM 2 upscales in one. Each
// step is linear and separable, so all of them fold into two to four weights per output pixel and
// axis. The float logits of a large image never exist at once, unless the caller asks for them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "geometry.h"
#include "glesam.h"
#include "manifest.h"

namespace glesam {

struct Decoded {
  std::size_t batch = 0, masks = 0, side = 0;  // B, C, S/4
  std::vector<float> low_res;                  // [B, C, S/4, S/4], logits
  std::vector<float> iou;                      // [B, C]
};

// Returns whether no logit is NaN and every IoU is finite.
bool is_usable(const Decoded& all);

// Selects from the decoder's four masks: the one that the rules name, or, with `multimask`, the last
// three.
Decoded choose(const Decoded& all, bool multimask, const Postprocessing& rules);

// Clips the logits that a later call can pass as its mask prompt, if the rules have a limit.
void limit_for_mask_input(std::vector<float>& low_res, const Postprocessing& rules);

// The weights that make each output pixel of an axis from the S/4 logits of a row or column.
struct AxisWeights {
  std::vector<std::int32_t> first;
  std::vector<float> weights;  // `span` weights for each output
  std::size_t span = 0;        // 2 to 4
};

// Where to write a mask [H, W], in up to four forms. Null pointers are skipped.
struct MaskTargets {
  std::uint8_t* bytes = nullptr;   // 0 and 1
  std::size_t stride = 0;          // bytes from one row of `bytes` to the next; 0 means W
  std::uint8_t* packed = nullptr;  // rows of (W + 7) / 8 bytes, the highest bit first
  std::string* rle = nullptr;      // COCO's compressed counts
  std::vector<Ring>* polygons = nullptr;
};

struct MaskSummary {
  double stability = 0;  // the area above threshold + offset divided by that above threshold -
                         // offset, or 0 if the latter is 0
  std::int64_t area = 0;
  Region box;  // the smallest rectangle around the mask; zeros if it is empty
};

// Computes the masks of one image, one mask per call.
class Upscaler {
 public:
  Upscaler(const Geometry& geometry, const Postprocessing& rules);

  // Computes logits at the original image's size: [S/4, S/4] -> [H, W].
  void logits(const float* low_res, float* out) const;
  // Computes a mask, and writes it in the forms that `targets` names.
  MaskSummary binarize(const float* low_res, const MaskTargets& targets) const;

 private:
  template <typename Row>
  void rows(const float* low_res, Row&& row) const;

  std::size_t side_, height_, width_;
  float threshold_, above_, below_;
  AxisWeights down_, across_;
};

}  // namespace glesam
