// How far numbers and masks lie apart, and how far each precision lets them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "manifest.h"

namespace glesam {

struct Gate {
  std::optional<double> stage_relative_l2, mask_iou_mean, mask_iou_worst;  // none: reported only
};

// The gate of a chain of stages: that of the coarsest precision among them. The masks of random
// weights are the sign of noise around zero: below fp32 they are reported only.
Gate gate_for(const Manifest& manifest);

// |actual - expected| / |expected|; infinity where `actual` is not finite.
double relative_l2(const std::vector<float>& actual, const std::vector<float>& expected);
double max_abs(const std::vector<float>& actual, const std::vector<float>& expected);

// Intersection over union of two masks; 1 where both are empty.
double mask_iou(const std::vector<std::uint8_t>& actual, const std::vector<std::uint8_t>& expected);

}  // namespace glesam
