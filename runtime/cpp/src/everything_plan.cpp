#include "everything_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "errors.h"
#include "text.h"

namespace glesam {
namespace {

constexpr double kAny = std::numeric_limits<double>::infinity();
constexpr std::int64_t kMostPoints = std::int64_t{1} << 24;  // in all grids, as in Python
constexpr std::int64_t kMostCrops = std::int64_t{1} << 20;

void check_number(const char* name, double value, double low, double high, const char* kind) {
  if (std::isfinite(value) && low <= value && value <= high) return;
  const std::string bounds = std::isinf(high)
                                 ? cat("of ", general(low), " or more")
                                 : cat("from ", general(low), " to ", general(high));
  input_error(cat(name, " ", general(value), ": ", kind, " ", bounds, " is needed"));
}

void check(const EverythingParams& params) {
  const auto whole = [](const char* name, int value, int low) {
    check_number(name, value, low, kAny, "a whole number");
  };
  const auto number = [](const char* name, double value, double high) {
    check_number(name, value, 0, high, "a number");
  };
  whole("points_per_side", params.points_per_side, params.point_grids.empty() ? 1 : 0);
  whole("points_per_batch", params.points_per_batch, 1);
  if (params.pred_iou_thresh) number("pred_iou_thresh", *params.pred_iou_thresh, 1);
  if (params.stability_score_thresh) {
    number("stability_score_thresh", *params.stability_score_thresh, 1);
  }
  if (params.stability_score_offset) {
    number("stability_score_offset", *params.stability_score_offset, kAny);
  }
  number("box_nms_thresh", params.box_nms_thresh, 1);
  whole("crop_n_layers", params.crop_n_layers, 0);
  number("crop_nms_thresh", params.crop_nms_thresh, 1);
  number("crop_overlap_ratio", params.crop_overlap_ratio, 1);
  whole("crop_n_points_downscale_factor", params.crop_n_points_downscale_factor, 1);
  whole("min_mask_region_area", params.min_mask_region_area, 0);
  if (params.crop_overlap_ratio == 1) {
    input_error("crop_overlap_ratio 1: must be less; at 1 all crops are the same");
  }
}

// Returns the centres of side x side equal cells, row by row, with the same bits as numpy.linspace.
std::vector<double> even_grid(std::int64_t side) {
  const double margin = 1 / (2 * static_cast<double>(side)), end = 1 - margin;
  std::vector<double> axis, grid;
  const double step = (end - margin) / static_cast<double>(std::max<std::int64_t>(side - 1, 1));
  for (std::int64_t i = 0; i < side; ++i) {
    axis.push_back(side > 1 && i == side - 1 ? end : static_cast<double>(i) * step + margin);
  }
  for (const double y : axis) {
    for (const double x : axis) grid.insert(grid.end(), {x, y});
  }
  return grid;
}

std::vector<std::vector<double>> even_grids(const EverythingParams& params) {
  std::vector<std::vector<double>> grids;
  std::int64_t total = 0, side = params.points_per_side;
  for (int layer = 0; layer <= params.crop_n_layers; ++layer) {
    total = side > kMostPoints ? kMostPoints + 1 : total + side * side;
    if (total > kMostPoints) {
      input_error(cat("points_per_side ", params.points_per_side, ", crop_n_layers ",
                      params.crop_n_layers, ": more than ", kMostPoints, " points up to layer ",
                      layer, "; give fewer"));
    }
    if (side < 1) {
      input_error(cat("crop_n_points_downscale_factor ", params.crop_n_points_downscale_factor,
                      ": ", params.points_per_side, " points per side leave none in crop layer ",
                      layer));
    }
    grids.push_back(even_grid(side));
    side /= params.crop_n_points_downscale_factor;
  }
  return grids;
}

std::vector<std::vector<double>> own_grids(const EverythingParams& params) {
  const auto& grids = params.point_grids;
  if (grids.size() < static_cast<std::size_t>(params.crop_n_layers) + 1) {
    input_error(cat("point_grids: ", grids.size(),
                    " given, but one for the image and one for each of ", params.crop_n_layers,
                    " crop layers is needed"));
  }
  for (std::size_t layer = 0; layer < grids.size(); ++layer) {
    const std::vector<double>& grid = grids[layer];
    if (grid.empty() || grid.size() % 2 != 0) {
      input_error(cat("point_grids[", layer, "]: ", grid.size(),
                      " numbers, but two for each point are needed, and at least one point"));
    }
    if (!std::all_of(grid.begin(), grid.end(), [](double at) { return at >= 0 && at <= 1; })) {
      input_error(
          cat("point_grids[", layer, "]: points must lie from 0 to 1 of the crop's size"));
    }
  }
  return grids;
}

// Cuts an axis into `count` overlapping parts of equal length; the last may be shorter.
std::vector<std::pair<std::int64_t, std::int64_t>> cut(std::int64_t length, std::int64_t count,
                                                       std::int64_t overlap) {
  const std::int64_t sum = overlap * (count - 1) + length;
  const auto part = static_cast<std::int64_t>(
      std::ceil(static_cast<double>(sum) / static_cast<double>(count)));
  std::vector<std::pair<std::int64_t, std::int64_t>> parts;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t start = (part - overlap) * i;
    parts.emplace_back(start, std::min(start + part, length));
  }
  return parts;
}

std::vector<Crop> plan_crops(Size image, const EverythingParams& params) {
  std::vector<Crop> crops{{0, 0, image.width, image.height, 0}};
  const auto shorter = static_cast<double>(std::min(image.height, image.width));
  for (int layer = 1; layer <= params.crop_n_layers; ++layer) {
    const std::int64_t side = layer < 32 ? std::int64_t{1} << layer : kMostCrops;
    const auto overlap = static_cast<std::int64_t>(params.crop_overlap_ratio * shorter *
                                                   (2 / static_cast<double>(side)));
    // The widest parts are those of the longer side: with more parts than pixels some are empty.
    const bool fits = side <= std::min(image.height, image.width);
    const auto across = fits ? cut(image.width, side, overlap) : decltype(cut(0, 1, 0)){};
    const auto down = fits ? cut(image.height, side, overlap) : across;
    const auto empty = [](const auto& part) { return part.second - part.first < 1; };
    if (!fits || std::any_of(across.begin(), across.end(), empty) ||
        std::any_of(down.begin(), down.end(), empty)) {
      input_error(cat("image: ", image.width, " x ", image.height, " pixels, too small for ",
                      params.crop_n_layers, " layers of crops; the maximum is ", layer - 1));
    }
    if (static_cast<std::int64_t>(crops.size()) + side * side > kMostCrops) {
      input_error(cat("crop_n_layers ", params.crop_n_layers, ": more than ", kMostCrops,
                      " crops up to layer ", layer, "; give fewer layers"));
    }
    for (const auto& [x0, x1] : across) {
      for (const auto& [y0, y1] : down) {
        crops.push_back({x0, y0, x1, y1, static_cast<std::size_t>(layer)});
      }
    }
  }
  return crops;
}

}  // namespace

SearchPlan plan_search(const EverythingParams& params, const Manifest& manifest, Size image) {
  check(params);
  const EverythingThresholds own = manifest.everything.value_or(EverythingThresholds{});
  return {params.pred_iou_thresh.value_or(own.pred_iou_thresh),
          params.stability_score_thresh.value_or(own.stability_score_thresh),
          params.stability_score_offset.value_or(own.stability_score_offset),
          plan_crops(image, params),
          params.point_grids.empty() ? even_grids(params) : own_grids(params)};
}

}  // namespace glesam
