#include "compare.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

namespace glesam {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct PrecisionGate {
  const char* precision;
  AccuracyGate gate;
};

// In order from the finest to the coarsest precision.
const PrecisionGate kGates[] = {
    {"fp32", {1e-4, 0.9999, 0.999}},      {"bf16", {2e-2, 0.995, 0.98}},
    {"fp16", {2e-2, 0.995, 0.98}},        {"fp8", {std::nullopt, 0.98, 0.95}},
    {"int8", {std::nullopt, 0.98, 0.95}},
};

bool all_finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

AccuracyGate accuracy_gate_for(const Manifest& manifest) {
  std::size_t coarsest = 0;
  for (const auto& [stage, record] : manifest.stages) {
    for (std::size_t i = 0; i < std::size(kGates); ++i) {
      if (record.precision == kGates[i].precision) coarsest = std::max(coarsest, i);
    }
  }
  AccuracyGate gate = kGates[coarsest].gate;
  if (!manifest.model.trained && coarsest > 0) gate.mask_iou_mean = gate.mask_iou_worst = {};
  return gate;
}

double relative_l2(const std::vector<float>& actual, const std::vector<float>& expected) {
  if (!all_finite(actual)) return kInfinity;
  double distance = 0, norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double e = expected[i], d = actual[i] - e;
    distance += d * d;
    norm += e * e;
  }
  if (norm == 0.0) return distance == 0.0 ? 0.0 : kInfinity;
  return std::sqrt(distance) / std::sqrt(norm);
}

double max_abs(const std::vector<float>& actual, const std::vector<float>& expected) {
  if (!all_finite(actual)) return kInfinity;
  double largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(actual[i]) - expected[i]));
  }
  return largest;
}

double mask_iou(const std::vector<std::uint8_t>& actual,
                const std::vector<std::uint8_t>& expected) {
  std::int64_t both = 0, either = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    both += actual[i] & expected[i];
    either += actual[i] | expected[i];
  }
  return either == 0 ? 1.0 : static_cast<double>(both) / static_cast<double>(either);
}

}  // namespace glesam
