#include "masks.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "mask_codes.h"
#include "outline.h"
#include "tensor.h"

namespace glesam {
namespace {

// Bilinear interpolation with half-pixel centres. Beyond the edge it uses the edge's value.
struct Bilinear {
  Bilinear(std::int64_t size_in, std::int64_t size_out)
      : last(size_in - 1), scale(static_cast<double>(size_in) / static_cast<double>(size_out)) {}
  struct Pair {
    std::int64_t left, right;
    double weight;  // the weight of `right`
  };
  Pair at(std::int64_t out) const {
    const double centre = std::max((static_cast<double>(out) + 0.5) * scale - 0.5, 0.0);
    const std::int64_t left = std::min(static_cast<std::int64_t>(centre), last);
    return {left, std::min(left + 1, last), centre - static_cast<double>(left)};
  }
  std::int64_t last;
  double scale;
};

// Returns the weight of each of `side` logits in one output pixel.
class Sum {
 public:
  void add(std::int64_t source, double weight) {
    if (weight == 0.0) return;
    const auto found = std::find_if(terms.begin(), terms.end(),
                                    [&](const auto& term) { return term.first == source; });
    if (found == terms.end()) {
      terms.emplace_back(source, weight);
    } else {
      found->second += weight;
    }
  }
  std::vector<std::pair<std::int64_t, double>> terms;
};

AxisWeights pack(const std::vector<Sum>& sums, std::int64_t side) {
  AxisWeights axis;
  const auto by_source = [](const auto& a, const auto& b) { return a.first < b.first; };
  std::vector<std::pair<std::int64_t, std::int64_t>>
      reach;  // the first and last logit of each output
  for (const Sum& sum : sums) {
    const auto ends = std::minmax_element(sum.terms.begin(), sum.terms.end(), by_source);
    reach.emplace_back(ends.first->first, ends.second->first);
    axis.span = std::max<std::size_t>(
        axis.span, static_cast<std::size_t>(reach.back().second - reach.back().first + 1));
  }
  axis.weights.resize(sums.size() * axis.span);
  for (std::size_t out = 0; out < sums.size(); ++out) {
    // Every output reads `span` logits, so the last outputs start early enough.
    const std::int64_t first =
        std::min(reach[out].first, side - static_cast<std::int64_t>(axis.span));
    axis.first.push_back(static_cast<std::int32_t>(first));
    for (const auto& [source, weight] : sums[out].terms) {
      axis.weights[out * axis.span + static_cast<std::size_t>(source - first)] =
          static_cast<float>(weight);
    }
  }
  return axis;
}

AxisWeights axis_of(std::int64_t side, std::int64_t image_size, std::int64_t resized,
                    std::int64_t original, bool direct) {
  std::vector<Sum> sums(static_cast<std::size_t>(original));
  const Bilinear up(side, image_size), fit(direct ? side : resized, original);
  for (std::int64_t out = 0; out < original; ++out) {
    Sum& sum = sums[static_cast<std::size_t>(out)];
    const Bilinear::Pair outer = fit.at(out);
    const std::pair<std::int64_t, double> ends[] = {{outer.left, 1.0 - outer.weight},
                                                    {outer.right, outer.weight}};
    for (const auto& [place, share] : ends) {
      if (direct) {
        sum.add(place, share);
        continue;
      }
      const Bilinear::Pair inner = up.at(place);
      sum.add(inner.left, share * (1.0 - inner.weight));
      sum.add(inner.right, share * inner.weight);
    }
  }
  return pack(sums, side);
}

// Returns whether the first mask is stable, so that it is the answer.
bool is_stable(const float* mask, std::size_t pixels, const Stability& rule) {
  const auto count_above = [&](double bound) {
    return static_cast<float>(std::count_if(
        mask, mask + pixels, [&](float value) { return value > static_cast<float>(bound); }));
  };
  const float inner = count_above(rule.offset), outer = count_above(-rule.offset);
  const float steadiness = outer > 0 ? inner / std::max(outer, 1.0F) : 1.0F;
  return steadiness >= static_cast<float>(rule.threshold);
}

}  // namespace

bool is_usable(const Decoded& all) {
  return std::none_of(all.low_res.begin(), all.low_res.end(),
                      [](float logit) { return std::isnan(logit); }) &&
         std::all_of(all.iou.begin(), all.iou.end(), [](float iou) { return std::isfinite(iou); });
}

Decoded choose(const Decoded& all, bool multimask, const Postprocessing& rules) {
  const std::size_t pixels = all.side * all.side;
  Decoded chosen{all.batch, multimask ? std::size_t{3} : std::size_t{1}, all.side, {}, {}};
  for (std::size_t b = 0; b < all.batch; ++b) {
    const float* masks = all.low_res.data() + b * 4 * pixels;
    const float* iou = all.iou.data() + b * 4;
    std::size_t from = multimask ? 1 : 0;
    if (!multimask && rules.stability && !is_stable(masks, pixels, *rules.stability)) {
      from = static_cast<std::size_t>(std::max_element(iou + 1, iou + 4) - iou);
    }
    const std::size_t to = from + chosen.masks;
    chosen.low_res.insert(chosen.low_res.end(), masks + from * pixels, masks + to * pixels);
    chosen.iou.insert(chosen.iou.end(), iou + from, iou + to);
  }
  return chosen;
}

void limit_for_mask_input(std::vector<float>& low_res, const Postprocessing& rules) {
  if (!rules.low_res_limit) return;
  const auto limit = static_cast<float>(*rules.low_res_limit);
  for (float& value : low_res) value = std::clamp(value, -limit, limit);
}

Upscaler::Upscaler(const Geometry& geometry, const Postprocessing& rules)
    : side_(static_cast<std::size_t>(geometry.image_size / 4)),
      height_(static_cast<std::size_t>(geometry.original.height)),
      width_(static_cast<std::size_t>(geometry.original.width)),
      threshold_(static_cast<float>(rules.mask_threshold)),
      above_(static_cast<float>(rules.mask_threshold + rules.stability_offset)),
      below_(static_cast<float>(rules.mask_threshold - rules.stability_offset)),
      down_(axis_of(geometry.image_size / 4, geometry.image_size, geometry.resized.height,
                    geometry.original.height, rules.direct)),
      across_(axis_of(geometry.image_size / 4, geometry.image_size, geometry.resized.width,
                      geometry.original.width, rules.direct)) {}

template <typename Row>
void Upscaler::rows(const float* low_res, Row&& row) const {
  // Combine rows first: there are few values, and the sums across read neighbours in memory.
  std::vector<float> narrow(side_), wide(width_);
  for (std::size_t y = 0; y < height_; ++y) {
    const float* from = low_res + static_cast<std::size_t>(down_.first[y]) * side_;
    const float* share = down_.weights.data() + y * down_.span;
    std::fill(narrow.begin(), narrow.end(), 0.0F);
    for (std::size_t i = 0; i < down_.span; ++i, from += side_) {
      for (std::size_t x = 0; x < side_; ++x) narrow[x] += share[i] * from[x];
    }
    for (std::size_t x = 0; x < width_; ++x) {
      const float* near = narrow.data() + across_.first[x];
      const float* weight = across_.weights.data() + x * across_.span;
      float sum = 0;
      for (std::size_t i = 0; i < across_.span; ++i) sum += weight[i] * near[i];
      wide[x] = sum;
    }
    row(y, wide.data());
  }
}

void Upscaler::logits(const float* low_res, float* out) const {
  rows(low_res,
       [&](std::size_t y, const float* row) { std::copy(row, row + width_, out + y * width_); });
}

MaskSummary Upscaler::binarize(const float* low_res, const MaskTargets& targets) const {
  MaskSummary summary;
  std::int64_t inner = 0, outer = 0;
  std::size_t left = width_, right = 0, top = height_, bottom = 0;  // right, bottom: exclusive
  std::vector<std::uint8_t> own(targets.bytes == nullptr ? width_ : 0);
  const std::size_t stride = targets.stride != 0 ? targets.stride : width_;
  const std::size_t packed_row = (width_ + 7) / 8;
  std::optional<RleWriter> rle;
  if (targets.rle != nullptr) rle.emplace(height_, width_);
  std::optional<OutlineWriter> outline;
  if (targets.polygons != nullptr) outline.emplace(width_);
  rows(low_res, [&](std::size_t y, const float* row) {
    std::int32_t above = 0, below = 0, inside = 0;
    std::uint8_t* to = targets.bytes != nullptr ? targets.bytes + y * stride : own.data();
    for (std::size_t x = 0; x < width_; ++x) {
      above += row[x] > above_;
      below += row[x] > below_;
      inside += row[x] > threshold_;
    }
    // A loop of its own, so that both are vectors of one type. Most rows of most masks are empty.
    if (inside == 0) {
      std::fill_n(to, width_, std::uint8_t{0});
    } else {
      for (std::size_t x = 0; x < width_; ++x) to[x] = row[x] > threshold_;
    }
    inner += above;
    outer += below;
    summary.area += inside;
    if (inside > 0) {
      const std::uint8_t* end = to + width_;
      left =
          std::min(left, static_cast<std::size_t>(std::find<const std::uint8_t*>(to, end, 1) - to));
      while (end[-1] == 0) --end;
      right = std::max(right, static_cast<std::size_t>(end - to));
      top = std::min(top, y);
      bottom = y + 1;
    }
    if (targets.packed != nullptr) pack_bits(to, width_, targets.packed + y * packed_row);
    if (rle) rle->add_row(to);
    if (outline) outline->add_row(to);
  });
  if (outline) *targets.polygons = outline->rings();
  if (rle) *targets.rle = rle->counts();
  summary.stability =
      static_cast<double>(inner) / static_cast<double>(std::max<std::int64_t>(outer, 1));
  if (summary.area > 0) {
    summary.box = {static_cast<int>(left), static_cast<int>(top), static_cast<int>(right - left),
                   static_cast<int>(bottom - top)};
  }
  return summary;
}

}  // namespace glesam
