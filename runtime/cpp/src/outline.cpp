#include "outline.h"

#include <algorithm>
#include <numeric>

namespace glesam {
namespace {

// A corner, and which of the two corners at its place it is.
struct Place {
  int x, y, copy;
};

// Returns for each corner the other end of its edge. Corners that are sorted along the edges are the
// ends of edges two by two.
template <typename Before>
std::vector<std::size_t> partners(const std::vector<Place>& places, Before before) {
  std::vector<std::size_t> order(places.size()), partner(places.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return before(places[a], places[b]); });
  for (std::size_t i = 0; i + 1 < order.size(); i += 2) {
    partner[order[i]] = order[i + 1];
    partner[order[i + 1]] = order[i];
  }
  return partner;
}

}  // namespace

OutlineWriter::OutlineWriter(std::size_t width) : before_(width + 2), current_(width + 2) {}

void OutlineWriter::add_row(const std::uint8_t* row) {
  if (row != nullptr) {
    std::copy(row, row + current_.size() - 2, current_.begin() + 1);
  } else {
    std::fill(current_.begin(), current_.end(), std::uint8_t{0});
  }
  if (current_ != before_) {
    for (std::size_t x = 0; x + 1 < current_.size(); ++x) {
      const bool above = before_[x] != before_[x + 1], below = current_[x] != current_[x + 1];
      const Corner corner{static_cast<int>(x), y_};
      if (above != below) {
        single_.push_back(corner);
      } else if (above && before_[x] != current_[x]) {
        double_.push_back(corner);
      }
    }
  }
  std::swap(before_, current_);
  ++y_;
}

std::vector<Ring> OutlineWriter::rings() {
  add_row(nullptr);
  std::vector<Place> places;
  places.reserve(single_.size() + 2 * double_.size());
  for (const Corner& corner : single_) places.push_back({corner.x, corner.y, 0});
  // The first copy has the edges to the left and above, the second those to the right and below.
  for (const int copy : {0, 1}) {
    for (const Corner& corner : double_) places.push_back({corner.x, corner.y, copy});
  }
  const auto across = partners(places, [](const Place& a, const Place& b) {
    return a.y != b.y ? a.y < b.y : a.x != b.x ? a.x < b.x : a.copy < b.copy;
  });
  const auto down = partners(places, [](const Place& a, const Place& b) {
    return a.x != b.x ? a.x < b.x : a.y != b.y ? a.y < b.y : a.copy < b.copy;
  });
  std::vector<bool> seen(places.size());
  std::vector<Ring> rings;
  for (std::size_t start = 0; start < places.size(); ++start) {
    if (seen[start]) continue;
    Ring ring;
    for (std::size_t at = start; !seen[at]; at = down[at]) {  // horizontal and vertical in turn
      seen[at] = true;
      ring.push_back({places[at].x, places[at].y});
      at = across[at];
      seen[at] = true;
      ring.push_back({places[at].x, places[at].y});
    }
    rings.push_back(std::move(ring));
  }
  return rings;
}

}  // namespace glesam
