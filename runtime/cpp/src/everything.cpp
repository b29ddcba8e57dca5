#include "everything.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace glesam {
namespace {

// First and last column and row, in pixels of the image.
struct Corners {
  std::int64_t x0 = 0, y0 = 0, x1 = 0, y1 = 0;
};

struct Found {
  Spans spans;
  Corners box;
  float predicted_iou = 0, stability = 0;
  double x = 0, y = 0;  // the prompt
  Crop crop;
};

constexpr std::int64_t kNear = 20;  // pixels from a crop's edge at which it may have cut off a mask

// Returns whether a box ends at an edge of its crop that is not an edge of the image.
bool near_crop_edge(const Corners& box, const Crop& crop, const Crop& whole) {
  const auto cuts = [](std::int64_t at, std::int64_t edge, std::int64_t end) {
    return std::abs(at - edge) <= kNear && std::abs(at - end) > kNear;
  };
  return cuts(box.x0, crop.x0, whole.x0) || cuts(box.y0, crop.y0, whole.y0) ||
         cuts(box.x1, crop.x1, whole.x1) || cuts(box.y1, crop.y1, whole.y1);
}

// The arithmetic is that of torchvision.ops.nms: areas and IoU in float32.
float iou_of(const Corners& a, const Corners& b) {
  const auto number = [](std::int64_t value) { return static_cast<float>(value); };
  const auto area = [&](const Corners& c) {
    return (number(c.x1) - number(c.x0)) * (number(c.y1) - number(c.y0));
  };
  const float across = number(std::min(a.x1, b.x1)) - number(std::max(a.x0, b.x0));
  const float down = number(std::min(a.y1, b.y1)) - number(std::max(a.y0, b.y0));
  const float overlap = std::max(across, 0.0F) * std::max(down, 0.0F);
  return overlap / (area(a) + area(b) - overlap);  // NaN for two boxes without area, no overlap
}

// Drops each mask whose box overlaps a kept box of a higher score. Returns the others, highest score
// first. Of equal scores the first stays.
std::vector<Found> without_duplicates(std::vector<Found> found, const std::vector<float>& scores,
                                      double threshold) {
  std::vector<std::size_t> order(found.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  std::vector<Found> kept;
  for (const std::size_t i : order) {
    const bool apart = std::none_of(kept.begin(), kept.end(), [&](const Found& other) {
      return static_cast<double>(iou_of(other.box, found[i].box)) > threshold;
    });
    if (apart) kept.push_back(std::move(found[i]));
  }
  return kept;
}

class Search {
 public:
  Search(const EverythingParams& params, const Manifest& manifest, Size image, const Stop& stop)
      : params_(params),
        manifest_(manifest),
        image_(image),
        stop_(stop),
        plan_(plan_search(params, manifest, image)) {}

  std::vector<Found> run(const std::function<CropSearch(const Crop&)>& encode) {
    std::vector<Found> found;
    for (const Crop& crop : plan_.crops) {
      stop_.check();
      std::vector<Found> here = search(crop, encode(crop));
      std::vector<float> scores;
      for (const Found& one : here) scores.push_back(one.predicted_iou);
      for (Found& one : without_duplicates(std::move(here), scores, params_.box_nms_thresh)) {
        found.push_back(std::move(one));
      }
    }
    if (plan_.crops.size() > 1) {
      std::vector<float> scores;
      for (const Found& one : found) {
        const auto width = static_cast<double>(one.crop.x1 - one.crop.x0);
        const auto height = static_cast<double>(one.crop.y1 - one.crop.y0);
        scores.push_back(static_cast<float>(1 / (width * height)));
      }
      found = without_duplicates(std::move(found), scores, params_.crop_nms_thresh);
    }
    return params_.min_mask_region_area > 0 ? tidied(std::move(found)) : found;
  }

 private:
  // Returns the masks of a crop that are good enough.
  std::vector<Found> search(const Crop& crop, const CropSearch& encoded) {
    Postprocessing rules = manifest_.postprocessing;
    rules.stability_offset = plan_.stability_score_offset;
    const Upscaler upscaler(encoded.geometry, rules);
    std::vector<double> points = plan_.grids[crop.layer];
    for (std::size_t i = 0; i < points.size(); i += 2) {
      points[i] *= static_cast<double>(crop.x1 - crop.x0);
      points[i + 1] *= static_cast<double>(crop.y1 - crop.y0);
    }
    const float least = plan_.pred_iou_thresh != 0 ? static_cast<float>(plan_.pred_iou_thresh)
                                                   : -std::numeric_limits<float>::infinity();
    const auto size = static_cast<std::size_t>(params_.points_per_batch);
    const std::vector<float> labels(std::min(size, points.size() / 2), 1.0F);
    std::vector<Found> found;
    for (std::size_t at = 0; at < points.size() / 2; at += size) {
      stop_.check();
      Prompts prompts;
      prompts.count = std::min(size, points.size() / 2 - at);
      prompts.points = points.data() + 2 * at;
      prompts.labels = labels.data();
      prompts.points_per_prompt = 1;
      const Decoded decoded = encoded.decode(prompts);
      for (std::size_t i = 0; i < decoded.iou.size(); ++i) {
        if (!(decoded.iou[i] > least)) continue;  // only good ones are upscaled
        Found one;
        one.crop = crop;
        one.predicted_iou = decoded.iou[i];
        const double* point = prompts.points + 2 * (i / decoded.masks);
        one.x = point[0] + static_cast<double>(crop.x0);
        one.y = point[1] + static_cast<double>(crop.y0);
        const float* low_res = decoded.low_res.data() + i * decoded.side * decoded.side;
        if (measure(upscaler, low_res, one)) found.push_back(std::move(one));
      }
    }
    return found;
  }

  // Returns whether a mask is stable enough and the edge of the crop does not cut it off.
  bool measure(const Upscaler& upscaler, const float* low_res, Found& one) {
    const Crop& crop = one.crop;
    const auto width = static_cast<std::size_t>(crop.x1 - crop.x0);
    mask_.resize(width * static_cast<std::size_t>(crop.y1 - crop.y0));
    const MaskSummary summary = upscaler.binarize(low_res, {mask_.data()});
    one.stability = static_cast<float>(summary.stability);
    if (one.stability < static_cast<float>(plan_.stability_score_thresh)) return false;
    const Region& box = summary.box;
    one.box = {crop.x0 + box.x, crop.y0 + box.y, 0, 0};
    one.box.x1 = one.box.x0 + std::max(box.width - 1, 0);
    one.box.y1 = one.box.y0 + std::max(box.height - 1, 0);
    if (near_crop_edge(one.box, crop, plan_.crops.front())) return false;
    const auto corner = static_cast<std::size_t>(box.y) * width + static_cast<std::size_t>(box.x);
    const Region place{static_cast<int>(one.box.x0), static_cast<int>(one.box.y0), box.width,
                       box.height};
    one.spans = spans_of(mask_.data() + corner, width, place, image_.height);
    return true;
  }

  // Fills small holes, removes small islands, and drops duplicates again. If this makes two masks
  // duplicates of each other, the one that it did not change stays.
  std::vector<Found> tidied(std::vector<Found> found) const {
    std::vector<float> unchanged;
    for (Found& one : found) {
      stop_.check();
      const bool changed =
          tidy(one.spans, image_.height, image_.width, params_.min_mask_region_area);
      if (changed) one.box = box_of(one.spans);
      unchanged.push_back(changed ? 0.0F : 1.0F);
    }
    return without_duplicates(std::move(found), unchanged,
                              std::max(params_.box_nms_thresh, params_.crop_nms_thresh));
  }

  Corners box_of(const Spans& spans) const {
    if (spans.empty()) return {};
    const std::int64_t height = image_.height;
    Corners box{spans.front().begin / height, height, (spans.back().end - 1) / height, 0};
    for (const Span& piece : split_at_columns(spans, height)) {
      box.y0 = std::min(box.y0, piece.begin % height);
      box.y1 = std::max(box.y1, (piece.end - 1) % height);
    }
    return box;
  }

  const EverythingParams& params_;
  const Manifest& manifest_;
  const Size image_;
  const Stop& stop_;
  const SearchPlan plan_;
  std::vector<std::uint8_t> mask_;  // of the crop, used again for each mask
};

Region region_of(const Corners& box) {
  return {static_cast<int>(box.x0), static_cast<int>(box.y0), static_cast<int>(box.x1 - box.x0),
          static_cast<int>(box.y1 - box.y0)};
}

}  // namespace

std::vector<Record> search_image(const EverythingParams& params, const Manifest& manifest, Size image,
                                 const std::function<CropSearch(const Crop&)>& encode,
                                 const Stop& stop) {
  std::vector<Record> records;
  for (Found& one : Search(params, manifest, image, stop).run(encode)) {
    Record record;
    record.rle = rle_of(one.spans, image.height * image.width);
    if (params.masks) record.mask = mask_of(one.spans, image.height, image.width);
    record.area = area_of(one.spans);
    record.bbox = region_of(one.box);
    record.predicted_iou = static_cast<double>(one.predicted_iou);
    record.stability_score = static_cast<double>(one.stability);
    record.point_x = one.x;
    record.point_y = one.y;
    record.crop_box = region_of({one.crop.x0, one.crop.y0, one.crop.x1, one.crop.y1});
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace glesam
