#include "prediction.h"

#include <utility>

#include "errors.h"
#include "tensor.h"
#include "text.h"

namespace glesam {
namespace {

bool fills_buffer(const PredictParams& params) {
  return params.masks && params.mask_buffer != nullptr;
}

// Returns the bytes from one row of a mask to the next.
std::size_t stride_of(const PredictParams& params, std::size_t width) {
  return fills_buffer(params) && params.mask_stride != 0 ? params.mask_stride : width;
}

// Computes the masks in the forms that are asked for, and what is known about each of them.
void add_masks(const Decoded& chosen, const PredictParams& params, const Upscaler& upscaler,
               const Stop& stop, Prediction& result) {
  const std::size_t count = chosen.batch * chosen.masks, step = chosen.side * chosen.side;
  const std::size_t stride = stride_of(params, result.width);
  const std::size_t packed = result.height * ((result.width + 7) / 8);
  const bool buffered = fills_buffer(params);
  if (params.masks && !buffered) result.masks.resize(count * result.height * result.width);
  if (params.packed) result.packed.resize(count * packed);
  if (params.rle) result.rle.resize(count);
  if (params.polygons) result.polygons.resize(count);
  std::uint8_t* const bytes = buffered ? params.mask_buffer : result.masks.data();
  for (std::size_t i = 0; i < count; ++i) {
    stop.check();
    MaskTargets targets;
    targets.stride = stride;
    if (params.masks) targets.bytes = bytes + i * result.height * stride;
    if (params.packed) targets.packed = result.packed.data() + i * packed;
    if (params.rle) targets.rle = &result.rle[i];
    if (params.polygons) targets.polygons = &result.polygons[i];
    const MaskSummary summary = upscaler.binarize(chosen.low_res.data() + i * step, targets);
    result.stability.push_back(summary.stability);
    result.areas.push_back(summary.area);
    result.boxes.push_back(summary.box);
  }
}

}  // namespace

void check_room(const PredictParams& params, std::size_t masks, Size size) {
  const auto height = static_cast<std::size_t>(size.height);
  const auto width = static_cast<std::size_t>(size.width);
  elements({static_cast<std::int64_t>(masks), size.height, size.width});
  if (!fills_buffer(params)) return;
  const std::size_t stride = stride_of(params, width);
  if (stride < width) {
    input_error(cat("mask_stride: ", stride, " bytes, but a row of the mask has ", width));
  }
  // The rows are counted from the buffer's size, so that no product can exceed 64 bits.
  const std::size_t bytes = params.mask_buffer_size;
  const std::size_t rows = bytes < width ? 0 : (bytes - width) / stride + 1;
  if (rows / height < masks) {
    input_error(cat("mask_buffer: ", bytes, " bytes, too few for ", masks, " masks of ", height,
                    " rows with a stride of ", stride, " bytes"));
  }
}

Prediction prediction_of(Decoded chosen, const PredictParams& params, const Upscaler& upscaler,
                         Size size, const Postprocessing& rules, const Stop& stop) {
  Prediction result;
  result.count = chosen.batch;
  result.masks_per_prompt = chosen.masks;
  result.height = static_cast<std::size_t>(size.height);
  result.width = static_cast<std::size_t>(size.width);
  result.low_res_side = chosen.side;
  if (params.masks || params.boxes || params.packed || params.rle || params.polygons) {
    add_masks(chosen, params, upscaler, stop, result);
  }
  if (params.logits) {
    const std::size_t count = chosen.batch * chosen.masks, step = chosen.side * chosen.side;
    const std::size_t pixels = result.height * result.width;
    result.logits.resize(count * pixels);
    for (std::size_t i = 0; i < count; ++i) {
      stop.check();
      upscaler.logits(chosen.low_res.data() + i * step, result.logits.data() + i * pixels);
    }
  }
  limit_for_mask_input(chosen.low_res, rules);
  result.low_res = std::move(chosen.low_res);
  result.scores = std::move(chosen.iou);
  return result;
}

}  // namespace glesam
