#include "overlay.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace glesam_gst {
namespace {

struct Colour {
  double red, green, blue;  // 0 to 255
};

// Those that glesam-run uses for its first masks.
constexpr Colour kColours[] = {{30, 144, 255}, {255, 159, 28}, {168, 85, 247}, {20, 184, 166},
                               {236, 72, 153}, {234, 214, 30}, {99, 102, 241}, {132, 204, 22}};
constexpr double kTint = 0.45;

std::uint8_t mixed(std::uint8_t under, double over, double share) {
  const double value = under + share * (over - under);
  return static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
}

// The colour as Y, U and V in the frame's own matrix and range.
struct Yuv {
  double y, u, v;
};

Yuv yuv_of(const Colour& colour, const GstVideoColorimetry& colorimetry) {
  double kr = 0.299, kb = 0.114;  // BT.601, for a matrix without coefficients of its own
  gst_video_color_matrix_get_Kr_Kb(colorimetry.matrix, &kr, &kb);
  const bool full = colorimetry.range == GST_VIDEO_COLOR_RANGE_0_255;
  const double luma = kr * colour.red + (1 - kr - kb) * colour.green + kb * colour.blue;
  const double u = (colour.blue - luma) / (2 * (1 - kb)), v = (colour.red - luma) / (2 * (1 - kr));
  if (full) return {luma, u + 128, v + 128};
  return {luma * 219 / 255 + 16, u * 224 / 255 + 128, v * 224 / 255 + 128};
}

// A mask and its edge.
struct Mask {
  const std::uint8_t* bytes;
  int width, height;

  bool inside(int x, int y) const {
    return x >= 0 && y >= 0 && x < width && y < height && bytes[std::ptrdiff_t{y} * width + x] != 0;
  }
  bool edge(int x, int y) const {
    return !(inside(x - 1, y) && inside(x + 1, y) && inside(x, y - 1) && inside(x, y + 1));
  }
};

std::uint8_t* row_of(GstVideoFrame* frame, int plane, int y) {
  auto* top = static_cast<std::uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(frame, plane));
  return top + std::ptrdiff_t{y} * GST_VIDEO_FRAME_PLANE_STRIDE(frame, plane);
}

void draw_rgb(GstVideoFrame* frame, const Mask& mask, const Colour& colour) {
  const bool blue_first = GST_VIDEO_FRAME_FORMAT(frame) == GST_VIDEO_FORMAT_BGR;
  const double over[] = {blue_first ? colour.blue : colour.red, colour.green,
                         blue_first ? colour.red : colour.blue};
  for (int y = 0; y < mask.height; ++y) {
    std::uint8_t* row = row_of(frame, 0, y);
    for (int x = 0; x < mask.width; ++x) {
      if (!mask.inside(x, y)) continue;
      const bool edge = mask.edge(x, y);
      for (int i = 0; i < 3; ++i) {
        std::uint8_t& value = row[3 * x + i];
        value = edge ? 255 : mixed(value, over[i], kTint);
      }
    }
  }
}

void draw_nv12(GstVideoFrame* frame, const Mask& mask, const Colour& colour) {
  const GstVideoColorimetry& colorimetry = frame->info.colorimetry;
  const Yuv over = yuv_of(colour, colorimetry), white = yuv_of({255, 255, 255}, colorimetry);
  for (int y = 0; y < mask.height; ++y) {
    std::uint8_t *luma = row_of(frame, 0, y), *chroma = row_of(frame, 1, y / 2);
    for (int x = 0; x < mask.width; ++x) {
      if (!mask.inside(x, y)) continue;
      const bool edge = mask.edge(x, y);
      luma[x] = mixed(luma[x], edge ? white.y : over.y, edge ? 1 : kTint);
      if (x % 2 != 0 || y % 2 != 0) continue;  // one sample of U and V for 2 x 2 pixels
      std::uint8_t* sample = chroma + x;
      sample[0] = mixed(sample[0], edge ? white.u : over.u, edge ? 1 : kTint);
      sample[1] = mixed(sample[1], edge ? white.v : over.v, edge ? 1 : kTint);
    }
  }
}

}  // namespace

void draw_mask(GstVideoFrame* frame, const std::uint8_t* bytes, std::size_t object) {
  const Mask mask{bytes, GST_VIDEO_FRAME_WIDTH(frame), GST_VIDEO_FRAME_HEIGHT(frame)};
  const Colour& colour = kColours[object % std::size(kColours)];
  if (GST_VIDEO_FRAME_FORMAT(frame) == GST_VIDEO_FORMAT_NV12) {
    draw_nv12(frame, mask, colour);
  } else {
    draw_rgb(frame, mask, colour);
  }
}

}  // namespace glesam_gst
