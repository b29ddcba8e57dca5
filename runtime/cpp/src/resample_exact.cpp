#include <algorithm>
#include <cmath>

#include "resample.h"
#include "tensor.h"

namespace glesam {
namespace {

constexpr double kUnits = 1 << 28;  // the weights of an output add up to this many units
// Adding and subtracting this number rounds a value half to even to a multiple of 2^-17, which is
// the spacing of doubles from 2^35 on.
constexpr double kRounder = 0x1.8p35;
using Weights = Taps<double>;

}  // namespace

Weights exact_taps(std::int64_t size_in, std::int64_t size_out) {
  const double scale = static_cast<double>(size_in) / static_cast<double>(size_out);
  const double reach = std::max(scale, 1.0);
  Weights taps;
  taps.span = 2 * static_cast<std::int64_t>(std::ceil(reach)) + 1;
  taps.weights.resize(static_cast<std::size_t>(size_out * taps.span));
  for (std::int64_t out = 0; out < size_out; ++out) {
    const double centre = (static_cast<double>(out) + 0.5) * scale;
    const auto first = static_cast<std::int64_t>(std::max(centre - reach, 0.0));
    const auto last = static_cast<std::int64_t>(
        std::min(std::ceil(centre + reach), static_cast<double>(size_in)));
    double* weights = taps.weights.data() + out * taps.span;
    double sum = 0;
    std::int64_t begin = first, count = 0;
    for (std::int64_t i = first; i < last; ++i) {
      const double distance = std::abs(static_cast<double>(i) + 0.5 - centre);
      const double weight = std::max(1.0 - distance / reach, 0.0);
      if (weight == 0.0 && count == 0) {
        begin = i + 1;
      } else if (weight > 0.0) {
        sum += weights[count++] = weight;
      }
    }
    double left = kUnits;
    for (std::int64_t i = 0; i < count; ++i) {
      weights[i] = std::nearbyint(weights[i] / sum * kUnits);
      left -= weights[i];
    }
    *std::max_element(weights, weights + count) += left;
    for (std::int64_t i = 0; i < count; ++i) weights[i] /= kUnits;
    taps.first.push_back(begin);
    taps.count.push_back(count);
  }
  return taps;
}

namespace {

// Resizes a row of pixels to the width of `taps`.
void across(const std::uint8_t* from, const Weights& taps, std::vector<double>& to) {
  for (std::size_t x = 0; x < taps.first.size(); ++x) {
    const double* weight = taps.weights.data() + static_cast<std::int64_t>(x) * taps.span;
    const std::uint8_t* pixel = from + 3 * taps.first[x];
    double sum[3] = {0, 0, 0};
    for (std::int64_t i = 0; i < taps.count[x]; ++i, pixel += 3) {
      for (int c = 0; c < 3; ++c) sum[c] += weight[i] * pixel[c];
    }
    for (std::size_t c = 0; c < 3; ++c) to[3 * x + c] = (sum[c] + kRounder) - kRounder;
  }
}

}  // namespace

std::vector<float> resize_exact(const Pixels& image, Size size) {
  const Weights columns = exact_taps(image.size.width, size.width);
  const Weights rows = exact_taps(image.size.height, size.height);
  const std::size_t row = elements({size.width, 3});
  std::vector<float> out(elements({size.height, size.width, 3}));
  std::vector<double> sum(row);
  // A ring of input rows, resized in width: those that the current output row needs.
  std::vector<std::vector<double>> wide(static_cast<std::size_t>(rows.span),
                                        std::vector<double>(row));
  std::int64_t made = 0;  // the next input row to resize
  for (std::int64_t y = 0; y < size.height; ++y) {
    made = std::max(made, rows.first[y]);
    for (; made < rows.first[y] + rows.count[y]; ++made) {
      across(image.row(made), columns, wide[made % rows.span]);
    }
    std::fill(sum.begin(), sum.end(), 0.0);
    for (std::int64_t i = 0; i < rows.count[y]; ++i) {
      const double weight = rows.weights[y * rows.span + i];
      const std::vector<double>& from = wide[(rows.first[y] + i) % rows.span];
      for (std::size_t x = 0; x < row; ++x) sum[x] += weight * from[x];
    }
    std::transform(sum.begin(), sum.end(), out.begin() + y * static_cast<std::int64_t>(row),
                   [](double value) { return static_cast<float>(value); });
  }
  return out;
}

}  // namespace glesam
