// A mask as the spans of its pixels, counted down the columns as COCO counts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "glesam.h"

namespace glesam {

// The positions of a span's first pixel and of the first pixel after it: column * height + row.
struct Span {
  std::int64_t begin = 0, end = 0;
};

// Sorted, and with a gap between any two.
using Spans = std::vector<Span>;

// Adds a span behind all others, and joins it with the last one if they touch.
void append(Spans& spans, Span next);

// Returns the spans of a window of a mask, at its place in an image.
// window: the first byte of the window's top left pixel; `stride`: bytes from one row to the next.
// place: the window in pixels of the image; `height`: of the image.
Spans spans_of(const std::uint8_t* window, std::size_t stride, const Region& place,
               std::int64_t height);

// Cuts spans at the ends of columns, so that each lies in one column. The result may touch.
Spans split_at_columns(const Spans& spans, std::int64_t height);

// Returns the spans of all other pixels.
Spans inverted(const Spans& spans, std::int64_t pixels);

std::int64_t area_of(const Spans& spans);

// Returns COCO's compressed counts.
std::string rle_of(const Spans& spans, std::int64_t pixels);

// Returns the mask [H, W].
std::vector<std::uint8_t> mask_of(const Spans& spans, std::int64_t height, std::int64_t width);

// Fills each hole with fewer pixels than `min_area`, then removes each region with fewer; if all are
// smaller, the largest stays. Pixels that touch at a side or a corner belong to one region. Returns
// whether anything changed.
bool tidy(Spans& spans, std::int64_t height, std::int64_t width, std::int64_t min_area);

}  // namespace glesam
