#include "frame.h"

#include <algorithm>
#include <limits>

#include "errors.h"
#include "tensor.h"
#include "text.h"
#include "yuv.h"

namespace glesam {
namespace {

constexpr auto kMostStride = static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max());

// A plane of a format: its bytes per sample, and whether a sample covers 2 x 2 pixels.
struct PlaneLayout {
  int bytes;
  bool halved;
};

struct Layout {
  const char* name;
  std::vector<PlaneLayout> planes;
};

const Layout& layout_of(Format format) {
  static const Layout layouts[] = {{"RGB", {{3, false}}},
                                   {"BGR", {{3, false}}},
                                   {"RGBA", {{4, false}}},
                                   {"BGRA", {{4, false}}},
                                   {"gray", {{1, false}}},
                                   {"NV12", {{1, false}, {2, true}}},
                                   {"I420", {{1, false}, {1, true}, {1, true}}}};
  const auto index = static_cast<std::int64_t>(format);
  if (index < 0 || index >= static_cast<std::int64_t>(std::size(layouts))) {
    input_error(
        cat("image: format ", index, " is not known; known are 0 to ", std::size(layouts) - 1));
  }
  return layouts[index];
}

// The samples of a plane.
struct PlaneSize {
  std::ptrdiff_t width, height;
};
PlaneSize size_of(const Frame& frame, const PlaneLayout& samples) {
  const std::ptrdiff_t halved = samples.halved ? 1 : 0;
  return {(std::ptrdiff_t{frame.width} + halved) >> halved,
          (std::ptrdiff_t{frame.height} + halved) >> halved};
}

void check_size(int width, int height) {
  if (width > 0 && height > 0) return;
  input_error(cat("image: ", width, " x ", height, " pixels, but it needs at least 1 x 1"));
}

// Returns the region of a frame, which lies inside it.
Region region_of(const Frame& frame) {
  const Region& region = frame.region;
  if (region.x == 0 && region.y == 0 && region.width == 0 && region.height == 0) {
    return {0, 0, frame.width, frame.height};
  }
  if (region.x < 0 || region.y < 0 || region.width < 1 || region.height < 1 ||
      region.width > frame.width || region.x > frame.width - region.width ||
      region.height > frame.height || region.y > frame.height - region.height) {
    input_error(cat("image: a region of ", region.width, " x ", region.height, " pixels at ",
                    region.x, ",", region.y, " is not inside the frame of ", frame.width, " x ",
                    frame.height, " pixels"));
  }
  return region;
}

void check_kinds(const Frame& frame) {
  const auto memory = static_cast<int>(frame.memory);
  if (memory < 0 || memory > 1) input_error(cat("image: memory ", memory, " is not known"));
  const auto matrix = static_cast<int>(frame.matrix), range = static_cast<int>(frame.range);
  if (matrix < 0 || matrix > 2) input_error(cat("image: YUV matrix ", matrix, " is not known"));
  if (range < 0 || range > 1) input_error(cat("image: YUV range ", range, " is not known"));
}

// Returns the plane's stride in bytes. The caller has checked the frame's size.
std::ptrdiff_t stride_of(const Frame& frame, std::size_t plane) {
  const Layout& layout = layout_of(frame.format);
  const PlaneLayout& samples = layout.planes[plane];
  const auto side = [&samples](int pixels) {
    const auto whole = static_cast<std::uint64_t>(pixels);
    return samples.halved ? (whole + 1) / 2 : whole;
  };
  const std::string where =
      layout.planes.size() == 1 ? std::string("image") : cat("image: plane ", plane);
  if (frame.planes[plane] == nullptr) {
    input_error(cat(where, ": a null pointer for ", frame.width, " x ", frame.height, " pixels"));
  }
  // The factors are below 2^31 and 2^2.
  const std::uint64_t row = side(frame.width) * static_cast<std::uint64_t>(samples.bytes);
  const std::ptrdiff_t stride = frame.strides[plane];
  const std::uint64_t step = stride == 0  ? row
                             : stride > 0 ? static_cast<std::uint64_t>(stride)
                                          : ~static_cast<std::uint64_t>(stride) + 1;
  if (step < row) {
    input_error(cat(where, ": a stride of ", stride, " bytes, but a row of ", side(frame.width),
                    " ", layout.name, samples.halved ? " samples has " : " pixels has ", row));
  }
  if (stride != 0 && step > kMostStride) {
    input_error(cat(where, ": a stride of ", stride, " bytes, more than ", kMostStride,
                    "; check the stride"));
  }
  // Both factors are below 2^33.
  if ((side(frame.height) - 1) * step + row > static_cast<std::uint64_t>(PTRDIFF_MAX)) {
    input_error(cat(where, ": ", side(frame.height), " rows with a stride of ", step,
                    " bytes fit in no memory; check the stride"));
  }
  return stride != 0 ? stride : static_cast<std::ptrdiff_t>(row);
}

// Copies the samples of pixels.
void pick(const PlaneRows& rows, const Region& region, const PackedPixel& pixel, std::uint8_t* to) {
  for (std::ptrdiff_t y = region.y; y < std::ptrdiff_t{region.y} + region.height; ++y) {
    const std::uint8_t* from = rows[y] + std::ptrdiff_t{region.x} * pixel.bytes;
    for (int x = 0; x < region.width; ++x, from += pixel.bytes, to += 3) {
      to[0] = from[pixel.red];
      to[1] = from[pixel.green];
      to[2] = from[pixel.blue];
    }
  }
}

// `step`: bytes from a sample of U to the next one, and of V.
void from_yuv(const PlaneRows& luma, const PlaneRows& u, const PlaneRows& v, std::ptrdiff_t step,
              const Region& region, const YuvToRgb& convert, std::uint8_t* to) {
  for (std::ptrdiff_t y = region.y; y < std::ptrdiff_t{region.y} + region.height; ++y) {
    const std::uint8_t *row = luma[y], *us = u[y / 2], *vs = v[y / 2];
    YuvToRgb::Chroma terms{};
    std::ptrdiff_t known = -1;  // the sample that `terms` is of
    for (std::ptrdiff_t x = region.x; x < std::ptrdiff_t{region.x} + region.width; ++x, to += 3) {
      if (x / 2 != known) {
        known = x / 2;
        terms = convert.chroma(us[known * step], vs[known * step]);
      }
      convert.write(row[x], terms, to);
    }
  }
}

}  // namespace

Region checked_region(const Frame& frame) {
  check_size(frame.width, frame.height);
  return region_of(frame);
}

Frame frame_of(const Image& image) {
  Frame frame;
  frame.width = image.width;
  frame.height = image.height;
  frame.planes[0] = image.rgb;
  // A negative number becomes a large one where the caller converts it to size_t.
  if (image.stride > kMostStride) {
    input_error(cat("image: a stride of ", image.stride, " bytes, more than ", kMostStride,
                    "; pass the top row first, or a Frame, whose stride may be negative"));
  }
  frame.strides[0] = static_cast<std::ptrdiff_t>(image.stride);
  return frame;
}

CheckedFrame check_frame(const Frame& frame, const Limits& limits) {
  CheckedFrame checked;
  const Region& region = checked.region = checked_region(frame);
  const std::size_t count = layout_of(frame.format).planes.size();
  const auto width = static_cast<std::uint64_t>(region.width);
  const auto height = static_cast<std::uint64_t>(region.height);
  const std::string size = cat("image: ", region.width, " x ", region.height, " pixels");
  check_limit(kSide, limits, std::max(width, height), size);
  check_limit(kMegapixels, limits, width * height, size);
  for (std::size_t i = 0; i < count; ++i)
    checked.planes[i] = {frame.planes[i], stride_of(frame, i)};
  check_kinds(frame);
  return checked;
}

std::optional<PackedPixel> packed_pixel(Format format) {
  switch (format) {
    case Format::rgb: return PackedPixel{3, 0, 1, 2};
    case Format::bgr: return PackedPixel{3, 2, 1, 0};
    case Format::rgba: return PackedPixel{4, 0, 1, 2};
    case Format::bgra: return PackedPixel{4, 2, 1, 0};
    case Format::gray: return PackedPixel{1, 0, 0, 0};
    case Format::nv12:
    case Format::i420: break;
  }
  return std::nullopt;
}

std::vector<PlaneBytes> plane_bytes(const Frame& frame) {
  const std::vector<PlaneLayout>& planes = layout_of(frame.format).planes;
  std::vector<PlaneBytes> all;
  for (std::size_t i = 0; i < planes.size(); ++i) {
    const PlaneRows rows{frame.planes[i], stride_of(frame, i)};
    const PlaneSize size = size_of(frame, planes[i]);
    const std::ptrdiff_t last = size.height - 1;
    const std::ptrdiff_t extent = last * (rows.stride < 0 ? -rows.stride : rows.stride);
    all.push_back({rows.stride < 0 ? rows[last] : rows.top,
                   static_cast<std::uint64_t>(extent + size.width * planes[i].bytes)});
  }
  return all;
}

RgbPixels rgb_of(const Frame& frame, const Limits& limits) {
  const CheckedFrame checked = check_frame(frame, limits);
  if (frame.memory != Memory::host) {
    input_error("image: a frame in CUDA memory, which only an engine on that GPU can read");
  }
  const auto& [region, planes] = checked;
  RgbPixels rgb;
  rgb.pixels.size = {region.height, region.width};
  if (frame.format == Format::rgb) {
    rgb.pixels.data = planes[0][region.y] + std::ptrdiff_t{region.x} * 3;
    rgb.pixels.stride = planes[0].stride;
    return rgb;
  }
  rgb.converted.resize(elements({region.height, region.width, 3}));
  rgb.pixels.data = rgb.converted.data();
  rgb.pixels.stride = std::ptrdiff_t{region.width} * 3;
  std::uint8_t* to = rgb.converted.data();
  if (const auto pixel = packed_pixel(frame.format)) {
    pick(planes[0], region, *pixel, to);
    return rgb;
  }
  const YuvToRgb convert(frame.matrix, frame.range);
  if (frame.format == Format::nv12) {
    const PlaneRows v{planes[1].top + 1, planes[1].stride};
    from_yuv(planes[0], planes[1], v, 2, region, convert, to);
  } else {
    from_yuv(planes[0], planes[1], planes[2], 1, region, convert, to);
  }
  return rgb;
}

std::vector<std::uint8_t> bytes_of(const Frame& frame) {
  check_size(frame.width, frame.height);
  const std::vector<PlaneLayout>& planes = layout_of(frame.format).planes;
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i < planes.size(); ++i) {
    const PlaneRows rows{frame.planes[i], stride_of(frame, i)};
    const PlaneSize size = size_of(frame, planes[i]);
    for (std::ptrdiff_t y = 0; y < size.height; ++y) {
      bytes.insert(bytes.end(), rows[y], rows[y] + size.width * planes[i].bytes);
    }
  }
  return bytes;
}

}  // namespace glesam
