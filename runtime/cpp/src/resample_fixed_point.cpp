#include <algorithm>
#include <cmath>

#include "resample.h"
#include "tensor.h"

namespace glesam {
namespace {

constexpr int kBits = kFixedPointBits;
using Weights = Taps<std::int32_t>;

// A triangle of width 1 on each side.
double bilinear(double distance) { return distance < 1.0 ? 1.0 - distance : 0.0; }

// The cubic convolution kernel with a = -0.5, of width 2 on each side.
double bicubic(double distance) {
  constexpr double a = -0.5;
  const double x = distance;
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

}  // namespace

// The filter lies around the centre of the output pixel. Its unit of width is one output pixel, but
// at least one input pixel. The part beyond the image is cut off, and the rest is divided by its
// sum and rounded half away from zero.
Weights fixed_point_taps(std::int64_t size_in, std::int64_t size_out, FixedPoint kernel) {
  const bool cubic = kernel == FixedPoint::bicubic;
  const double scale = static_cast<double>(size_in) / static_cast<double>(size_out);
  const double unit = std::max(scale, 1.0);
  const double reach = cubic ? 2.0 * unit : unit;
  Weights taps;
  taps.span = static_cast<std::int64_t>(std::ceil(reach)) * 2 + 1;
  taps.weights.resize(static_cast<std::size_t>(size_out * taps.span));
  std::vector<double> exact(static_cast<std::size_t>(taps.span));
  for (std::int64_t out = 0; out < size_out; ++out) {
    const double centre = (static_cast<double>(out) + 0.5) * scale;
    const auto low = static_cast<std::int64_t>(centre - reach + 0.5);
    const auto high = static_cast<std::int64_t>(centre + reach + 0.5);
    const std::int64_t first = std::max<std::int64_t>(low, 0);
    const std::int64_t count = std::min(high, size_in) - first;
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const double distance =
          std::abs((static_cast<double>(i + first) - centre + 0.5) * (1.0 / unit));
      sum += exact[i] = cubic ? bicubic(distance) : bilinear(distance);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const double weight = sum != 0.0 ? exact[i] / sum : exact[i];
      const double half = weight < 0.0 ? -0.5 : 0.5;
      taps.weights[out * taps.span + i] = static_cast<std::int32_t>(half + weight * (1 << kBits));
    }
    taps.first.push_back(first);
    taps.count.push_back(count);
  }
  return taps;
}

bool resizes_height_first(Size from, Size to) {  // as Pillow 13 does
  const std::int64_t lost_height = from.height - to.height, lost_width = from.width - to.width;
  return lost_height > 0 && lost_height > 2 * lost_width;
}

namespace {

std::uint8_t to_byte(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kBits, 0, 255));
}

constexpr std::int32_t kHalf = 1 << (kBits - 1);

// An interleaved RGB image that owns its pixels.
struct Picture {
  Size size;
  std::vector<std::uint8_t> bytes;
  explicit Picture(Size s) : size(s), bytes(elements({s.height, s.width, 3})) {}
  Pixels pixels() const {
    return {bytes.data(), size, static_cast<std::ptrdiff_t>(size.width) * 3};
  }
};

Picture resize_width(const Pixels& image, std::int64_t width, FixedPoint kernel) {
  Picture out({image.size.height, width});
  const Weights taps = fixed_point_taps(image.size.width, width, kernel);
  std::uint8_t* to = out.bytes.data();
  for (std::int64_t y = 0; y < image.size.height; ++y) {
    const std::uint8_t* from = image.row(y);
    for (std::int64_t x = 0; x < width; ++x, to += 3) {
      const std::int32_t* weight = taps.weights.data() + x * taps.span;
      const std::uint8_t* pixel = from + 3 * taps.first[x];
      std::int32_t sum[3] = {kHalf, kHalf, kHalf};
      for (std::int64_t i = 0; i < taps.count[x]; ++i, pixel += 3) {
        for (int c = 0; c < 3; ++c) sum[c] += weight[i] * pixel[c];
      }
      for (int c = 0; c < 3; ++c) to[c] = to_byte(sum[c]);
    }
  }
  return out;
}

Picture resize_height(const Pixels& image, std::int64_t height, FixedPoint kernel) {
  Picture out({height, image.size.width});
  const Weights taps = fixed_point_taps(image.size.height, height, kernel);
  std::vector<std::int32_t> sums(static_cast<std::size_t>(image.size.width) * 3);
  auto to = out.bytes.begin();
  for (std::int64_t y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), kHalf);
    for (std::int64_t i = 0; i < taps.count[y]; ++i) {
      const std::int32_t weight = taps.weights[y * taps.span + i];
      const std::uint8_t* from = image.row(taps.first[y] + i);
      for (std::size_t x = 0; x < sums.size(); ++x) sums[x] += weight * from[x];
    }
    to = std::transform(sums.begin(), sums.end(), to, to_byte);
  }
  return out;
}

Picture copied(const Pixels& image) {
  Picture out(image.size);
  const std::size_t row = static_cast<std::size_t>(image.size.width) * 3;
  for (std::int64_t y = 0; y < image.size.height; ++y) {
    std::copy_n(image.row(y), row, out.bytes.data() + static_cast<std::size_t>(y) * row);
  }
  return out;
}

}  // namespace

std::vector<std::uint8_t> resize_fixed_point(const Pixels& image, Size size, FixedPoint kernel) {
  const bool same_height = size.height == image.size.height;
  const bool same_width = size.width == image.size.width;
  if (same_height && same_width) return copied(image).bytes;
  if (same_height) return resize_width(image, size.width, kernel).bytes;
  if (same_width) return resize_height(image, size.height, kernel).bytes;
  if (resizes_height_first(image.size, size)) {
    const Picture half = resize_height(image, size.height, kernel);
    return resize_width(half.pixels(), size.width, kernel).bytes;
  }
  const Picture half = resize_width(image, size.width, kernel);
  return resize_height(half.pixels(), size.height, kernel).bytes;
}

}  // namespace glesam
