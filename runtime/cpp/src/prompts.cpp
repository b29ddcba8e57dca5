#include "prompts.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "errors.h"
#include "owned_prompts.h"
#include "text.h"

namespace glesam {
namespace {

constexpr float kBackground = 0, kForeground = 1, kBoxStart = 2, kBoxEnd = 3, kPadding = -1;

template <typename Value>
void check_finite(const Value* values, std::size_t count, const char* name) {
  const bool finite =
      std::all_of(values, values + count, [](Value value) { return std::isfinite(value); });
  if (!finite) input_error(cat(name, ": holds NaN or infinity"));
}

std::string image_of(const Geometry& geometry) {
  return cat("the image of ", geometry.original.width, " x ", geometry.original.height, " pixels");
}

void check_point(const double* point, float label, const Geometry& geometry) {
  const double x = point[0], y = point[1];
  const std::string spelled = cat(general(x), ",", general(y));
  const bool inside = 0 <= x && x < static_cast<double>(geometry.original.width) && 0 <= y &&
                      y < static_cast<double>(geometry.original.height);
  if (!inside) input_error(cat("point ", spelled, " lies outside ", image_of(geometry)));
  if (label != kBackground && label != kForeground) {
    input_error(cat("label ", general(static_cast<double>(label)), " of point ", spelled,
                    ": must be 1 (object) or 0 (background)"));
  }
}

void check_box(const double* box, const Geometry& geometry) {
  const double x0 = box[0], y0 = box[1], x1 = box[2], y1 = box[3];
  const auto width = static_cast<double>(geometry.original.width);
  const auto height = static_cast<double>(geometry.original.height);
  const std::string spelled =
      cat("box ", general(x0), ",", general(y0), ",", general(x1), ",", general(y1));
  if (x1 <= x0 || y1 <= y0) input_error(cat(spelled, ": x1 must exceed x0 and y1 must exceed y0"));
  if (x1 <= 0 || y1 <= 0 || x0 >= width || y0 >= height) {
    input_error(cat(spelled, " lies outside ", image_of(geometry)));
  }
  if (x0 < -width || y0 < -height || x1 > 2 * width || y1 > 2 * height) {
    input_error(cat(spelled, " reaches too far beyond ", image_of(geometry)));
  }
}

std::size_t mask_pixels_of(const Geometry& geometry) {
  return elements({geometry.image_size / 4, geometry.image_size / 4});
}

// Limits can be raised to any number. Later code must not read beyond the address space.
void check_counts(const Prompts& prompts, std::size_t mask_pixels, const Limits& limits) {
  const std::size_t batch = prompts.count, points = prompts.points_per_prompt;
  check_limit(kPrompts, limits, batch, cat("prompts: count is ", batch));
  check_limit(kPoints, limits, points, cat("points: ", points, " in one prompt"));
  constexpr std::size_t kMost = SIZE_MAX / 2;
  if (batch > kMost || points > kMost - 3) throw std::length_error("prompts beyond any memory");
  const auto rows = static_cast<std::int64_t>(batch);
  elements({rows, static_cast<std::int64_t>(points) + 3, 4});
  elements({rows, static_cast<std::int64_t>(mask_pixels)});
}

template <typename Value>
std::vector<Value> copied(const Value* values, std::size_t count) {
  return values != nullptr ? std::vector<Value>(values, values + count) : std::vector<Value>();
}

}  // namespace

OwnedPrompts::OwnedPrompts(const Prompts& given, std::size_t side, const Limits& limits)
    : given_(given) {
  check_counts(given, side * side, limits);
  const std::size_t batch = given.count, points = batch * given.points_per_prompt;
  points_ = copied(given.points, points * 2);
  labels_ = copied(given.labels, points);
  boxes_ = copied(given.boxes, batch * 4);
  mask_input_ = copied(given.mask_input, batch * side * side);
}

Prompts OwnedPrompts::prompts() const {
  Prompts own = given_;  // a null pointer stays one, since checks tell it from an empty array
  if (own.points != nullptr) own.points = points_.data();
  if (own.labels != nullptr) own.labels = labels_.data();
  if (own.boxes != nullptr) own.boxes = boxes_.data();
  if (own.mask_input != nullptr) own.mask_input = mask_input_.data();
  return own;
}

void check_prompts(const Prompts& prompts, const Geometry& geometry, const Limits& limits) {
  const std::size_t batch = prompts.count, points = prompts.points_per_prompt;
  if ((prompts.points == nullptr) != (prompts.labels == nullptr)) {
    input_error(prompts.labels == nullptr ? "points are given without labels"
                                          : "labels are given without points");
  }
  if (prompts.points == nullptr && prompts.boxes == nullptr && prompts.mask_input == nullptr) {
    input_error("no prompt: give points, a box or a mask");
  }
  if (batch == 0) input_error("prompts: count is 0, at least one is needed");
  if ((prompts.points != nullptr) != (points > 0)) {
    input_error(points > 0 ? "points: a null pointer, but points_per_prompt is not 0"
                           : "points: points_per_prompt is 0, but points are given");
  }
  const std::size_t mask_pixels = mask_pixels_of(geometry);
  check_counts(prompts, mask_pixels, limits);
  if (prompts.points != nullptr) {
    check_finite(prompts.points, batch * points * 2, "points");
    check_finite(prompts.labels, batch * points, "labels");
    for (std::size_t i = 0; i < batch * points; ++i) {
      check_point(prompts.points + 2 * i, prompts.labels[i], geometry);
    }
  }
  if (prompts.boxes != nullptr) {
    check_finite(prompts.boxes, batch * 4, "box");
    for (std::size_t i = 0; i < batch; ++i) check_box(prompts.boxes + 4 * i, geometry);
  }
  if (prompts.mask_input != nullptr) {
    check_finite(prompts.mask_input, batch * mask_pixels, "mask prompt");
  }
}

Prompts part_of(const Prompts& prompts, std::size_t first, std::size_t count,
                const Geometry& geometry) {
  Prompts part = prompts;
  part.count = count;
  const std::size_t points = first * prompts.points_per_prompt;
  if (prompts.points != nullptr) part.points += 2 * points;
  if (prompts.labels != nullptr) part.labels += points;
  if (prompts.boxes != nullptr) part.boxes += 4 * first;
  if (prompts.mask_input != nullptr) part.mask_input += first * mask_pixels_of(geometry);
  return part;
}

Tensors prompt_tensors(const Prompts& prompts, const Geometry& geometry, const Coordinates& rules) {
  const std::int64_t side = geometry.image_size / 4;
  const std::size_t mask_pixels = mask_pixels_of(geometry);
  const bool boxed = prompts.boxes != nullptr;
  const bool padded = boxed ? rules.always_padded : prompts.points != nullptr;
  const double scale_x =
      static_cast<double>(geometry.resized.width) / static_cast<double>(geometry.original.width);
  const double scale_y =
      static_cast<double>(geometry.resized.height) / static_cast<double>(geometry.original.height);
  std::vector<float> coords, labels;
  const auto add = [&](double x, double y, float label) {
    coords.push_back(static_cast<float>(x * scale_x));
    coords.push_back(static_cast<float>(y * scale_y));
    labels.push_back(label);
  };
  for (std::size_t b = 0; b < prompts.count; ++b) {
    for (std::size_t i = b * prompts.points_per_prompt; i < (b + 1) * prompts.points_per_prompt;
         ++i) {
      add(prompts.points[2 * i], prompts.points[2 * i + 1], prompts.labels[i]);
    }
    if (boxed) {
      const double* box = prompts.boxes + 4 * b;
      add(box[0], box[1], kBoxStart);
      add(box[2], box[3], kBoxEnd);
    }
    if (padded) add(0, 0, kPadding);
  }
  const auto batch = static_cast<std::int64_t>(prompts.count);
  const auto tokens = static_cast<std::int64_t>(labels.size() / prompts.count);
  const bool masked = prompts.mask_input != nullptr;
  std::vector<float> mask(prompts.count * mask_pixels);
  if (masked) std::copy_n(prompts.mask_input, mask.size(), mask.begin());
  Tensors tensors;
  tensors["point_coords"] = host_tensor({batch, tokens, 2}, std::move(coords));
  tensors["point_labels"] = host_tensor({batch, tokens}, std::move(labels));
  tensors["mask_input"] = host_tensor({batch, 1, side, side}, std::move(mask));
  tensors["has_mask_input"] = host_tensor({1}, {masked ? 1.0F : 0.0F});
  return tensors;
}

}  // namespace glesam
