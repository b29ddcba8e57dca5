#include "spans.h"

#include <algorithm>
#include <numeric>

#include "mask_codes.h"
#include "tensor.h"

namespace glesam {
namespace {

// Returns for each piece the first piece of its region. Pieces lie in one column each.
std::vector<std::size_t> regions_of(const Spans& pieces, std::int64_t height) {
  std::vector<std::size_t> root(pieces.size());
  std::iota(root.begin(), root.end(), std::size_t{0});
  const auto find = [&root](std::size_t piece) {
    while (root[piece] != piece) piece = root[piece] = root[root[piece]];
    return piece;
  };
  std::size_t first = 0;  // the first piece that may touch piece i from the column before
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::int64_t column = pieces[i].begin / height;
    // The place of piece i, if it was in the column before. Corners touch.
    const std::int64_t begin = pieces[i].begin - height, end = pieces[i].end - height;
    while (first < i && (pieces[first].begin / height < column - 1 || pieces[first].end < begin)) {
      ++first;
    }
    for (std::size_t k = first; k < i; ++k) {
      if (pieces[k].begin / height >= column || pieces[k].begin > end) break;
      const std::size_t a = find(k), b = find(i);
      root[std::max(a, b)] = std::min(a, b);
    }
  }
  for (std::size_t i = 0; i < root.size(); ++i) root[i] = find(i);
  return root;
}

// Drops the regions with fewer pixels than `min_area`. Returns whether anything changed.
bool drop_small(Spans& spans, std::int64_t height, std::int64_t width, std::int64_t min_area,
                bool keep_largest) {
  const Spans pieces = split_at_columns(spans, height);
  const std::vector<std::size_t> region = regions_of(pieces, height);
  std::vector<std::int64_t> area(pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    area[region[i]] += pieces[i].end - pieces[i].begin;
  }
  const auto is_kept = [&](std::size_t i) { return area[region[i]] >= min_area; };
  std::vector<std::size_t> kept;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (is_kept(i)) kept.push_back(i);
  }
  if (kept.size() == pieces.size()) return false;
  if (keep_largest && kept.empty()) {
    // Among regions of equal area OpenCV meets first the one with the first block of 2 x 2 pixels,
    // and segment_anything keeps that.
    const auto order = [&](std::size_t i) {
      const std::int64_t column = pieces[i].begin / height, row = pieces[i].begin % height;
      return std::make_pair(-area[region[i]], row / 2 * (width / 2 + 1) + column / 2);
    };
    std::size_t largest = 0;
    for (std::size_t i = 1; i < pieces.size(); ++i) {
      if (order(i) < order(largest)) largest = i;
    }
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (region[i] == region[largest]) kept.push_back(i);
    }
  }
  spans.clear();
  for (const std::size_t i : kept) append(spans, pieces[i]);
  return true;
}

}  // namespace

void append(Spans& spans, Span next) {
  if (!spans.empty() && spans.back().end == next.begin) {
    spans.back().end = next.end;
  } else {
    spans.push_back(next);
  }
}

Spans spans_of(const std::uint8_t* window, std::size_t stride, const Region& place,
               std::int64_t height) {
  Spans spans;
  for (int x = 0; x < place.width; ++x) {
    const std::int64_t top = (std::int64_t{place.x} + x) * height + place.y;
    const std::uint8_t* pixel = window + x;
    std::int64_t begin = -1;
    for (int y = 0; y < place.height; ++y, pixel += stride) {
      if (*pixel != 0 && begin < 0) begin = top + y;
      if (*pixel == 0 && begin >= 0) {
        append(spans, {begin, top + y});
        begin = -1;
      }
    }
    if (begin >= 0) append(spans, {begin, top + place.height});
  }
  return spans;
}

Spans split_at_columns(const Spans& spans, std::int64_t height) {
  Spans pieces;
  for (const Span& span : spans) {
    for (std::int64_t begin = span.begin; begin < span.end;) {
      const std::int64_t end = std::min((begin / height + 1) * height, span.end);
      pieces.push_back({begin, end});
      begin = end;
    }
  }
  return pieces;
}

Spans inverted(const Spans& spans, std::int64_t pixels) {
  Spans others;
  std::int64_t last = 0;
  for (const Span& span : spans) {
    if (span.begin > last) others.push_back({last, span.begin});
    last = span.end;
  }
  if (pixels > last) others.push_back({last, pixels});
  return others;
}

std::int64_t area_of(const Spans& spans) {
  return std::accumulate(spans.begin(), spans.end(), std::int64_t{0},
                         [](std::int64_t sum, const Span& s) { return sum + s.end - s.begin; });
}

std::string rle_of(const Spans& spans, std::int64_t pixels) {
  RunWriter runs;
  for (const Span& span : spans) {
    runs.change_at(span.begin);
    runs.change_at(span.end);
  }
  return runs.finish(pixels);
}

std::vector<std::uint8_t> mask_of(const Spans& spans, std::int64_t height, std::int64_t width) {
  std::vector<std::uint8_t> mask(elements({height, width}));
  for (const Span& span : spans) {
    for (std::int64_t at = span.begin; at < span.end; ++at) {
      mask[static_cast<std::size_t>(at % height * width + at / height)] = 1;
    }
  }
  return mask;
}

bool tidy(Spans& spans, std::int64_t height, std::int64_t width, std::int64_t min_area) {
  Spans outside = inverted(spans, height * width);
  const bool filled = drop_small(outside, height, width, min_area, false);
  if (filled) spans = inverted(outside, height * width);
  const bool removed = drop_small(spans, height, width, min_area, true);
  return filled || removed;
}

}  // namespace glesam
