#include "yuv.h"

namespace glesam {
namespace {

struct Fraction {
  std::int64_t numerator, denominator;
};

// Kr and Kb in units of 1 / kUnit.
struct Weights {
  std::int64_t red, blue;
};
constexpr std::int64_t kUnit = 10'000;
constexpr Weights kWeights[] = {{2990, 1140}, {2126, 722}, {2627, 593}};

// Returns floor(factor * value * 2^bits).
std::int64_t fixed_point(Fraction factor, std::int64_t value, int bits) {
  const std::int64_t numerator = factor.numerator * value;
  std::int64_t quotient = numerator / factor.denominator;
  std::int64_t rest = numerator % factor.denominator;
  if (rest < 0) {
    rest += factor.denominator;
    --quotient;
  }
  for (int bit = 0; bit < bits; ++bit) {
    rest *= 2;
    const bool one = rest >= factor.denominator;
    if (one) rest -= factor.denominator;
    quotient = quotient * 2 + (one ? 1 : 0);
  }
  return quotient;
}

}  // namespace

YuvToRgb::YuvToRgb(YuvMatrix matrix, YuvRange range) {
  const Weights& k = kWeights[static_cast<int>(matrix)];
  const std::int64_t green = kUnit - k.red - k.blue;
  const bool full = range == YuvRange::full;
  const Fraction y = full ? Fraction{1, 1} : Fraction{255, 219};
  const Fraction c = full ? Fraction{1, 1} : Fraction{255, 224};  // of U and V
  const auto scaled = [&c](std::int64_t numerator, std::int64_t denominator) {
    return Fraction{c.numerator * numerator, c.denominator * denominator};
  };
  const Fraction red = scaled(2 * (kUnit - k.red), kUnit),
                 blue = scaled(2 * (kUnit - k.blue), kUnit);
  const Fraction green_u = scaled(-2 * (kUnit - k.blue) * k.blue, kUnit * green);
  const Fraction green_v = scaled(-2 * (kUnit - k.red) * k.red, kUnit * green);
  constexpr std::int64_t kHalf = std::int64_t{1} << (kBits - 1), kLost = 3;
  for (std::size_t i = 0; i < 256; ++i) {
    const auto value = static_cast<std::int64_t>(i);
    luma_[i] = fixed_point(y, full ? value : value - 16, kBits) + kHalf + kLost;
    red_[i] = fixed_point(red, value - 128, kBits);
    green_u_[i] = fixed_point(green_u, value - 128, kBits);
    green_v_[i] = fixed_point(green_v, value - 128, kBits);
    blue_[i] = fixed_point(blue, value - 128, kBits);
  }
}

}  // namespace glesam
