// The difference between numbers or masks, and the limits of each precision.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "manifest.h"

namespace glesam {

struct AccuracyGate {
  std::optional<double> stage_relative_l2, mask_iou_mean,
      mask_iou_worst;  // no value: only reported
};

// Returns the limits for a bundle, which are those of its coarsest stage. With random weights the
// logits are noise around zero, and rounding flips their signs: below fp32 the figures of the masks
// are only reported.
AccuracyGate accuracy_gate_for(const Manifest& manifest);

// Returns |actual - expected| / |expected|, or infinity if `actual` is not finite.
double relative_l2(const std::vector<float>& actual, const std::vector<float>& expected);
// Returns the largest absolute difference, or infinity if `actual` is not finite.
double max_abs(const std::vector<float>& actual, const std::vector<float>& expected);

// Returns the intersection over union of two masks, or 1 if both are empty.
double mask_iou(const std::vector<std::uint8_t>& actual, const std::vector<std::uint8_t>& expected);

}  // namespace glesam
