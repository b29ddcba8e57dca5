#include "mask_codes.h"

#include <algorithm>
#include <cstring>

namespace glesam {
namespace {

// Appends a signed number: groups of 5 bits, the lowest first, each as a printable character. The
// bit 0x20 says that more groups follow. The last group's highest bit, 0x10, is the sign.
void append_number(std::int64_t number, std::string& text) {
  bool more = true;
  while (more) {
    const auto group = static_cast<int>(number & 0x1f);
    number >>= 5;
    const std::int64_t only_sign = (group & 0x10) != 0 ? -1 : 0;
    more = number != only_sign;
    text += static_cast<char>('0' + (more ? group | 0x20 : group));
  }
}

}  // namespace

void RunWriter::change_at(std::int64_t place) {
  add(place - last_);
  last_ = place;
}

std::string RunWriter::finish(std::int64_t pixels) {
  if (pixels > last_) add(pixels - last_);
  return std::move(text_);
}

// From the fourth run on, the text has the difference from the run two before.
void RunWriter::add(std::int64_t run) {
  append_number(count_ > 2 ? run - previous_[0] : run, text_);
  previous_[0] = previous_[1];
  previous_[1] = run;
  ++count_;
}

void pack_bits(const std::uint8_t* row, std::size_t width, std::uint8_t* packed) {
  for (std::size_t x = 0; x < width; x += 8) {
    const std::size_t count = std::min<std::size_t>(8, width - x);
    unsigned bits = 0;
    for (std::size_t i = 0; i < count; ++i) bits |= unsigned{row[x + i]} << (7 - i);
    *packed++ = static_cast<std::uint8_t>(bits);
  }
}

RleWriter::RleWriter(std::size_t height, std::size_t width)
    : height_(height), before_(width), changes_(width) {}

void RleWriter::add_row(const std::uint8_t* row) {
  constexpr std::size_t kBlock = 64;  // most blocks are equal to the row above
  const std::size_t width = before_.size();
  for (std::size_t begin = 0; begin < width; begin += kBlock) {
    const std::size_t end = std::min(begin + kBlock, width);
    if (std::memcmp(row + begin, before_.data() + begin, end - begin) == 0) continue;
    for (std::size_t x = begin; x < end; ++x) {
      if (row[x] != before_[x]) changes_[x].push_back(y_);
    }
    std::copy(row + begin, row + end, before_.begin() + static_cast<std::ptrdiff_t>(begin));
  }
  ++y_;
}

std::string RleWriter::counts() const {
  RunWriter runs;
  const auto height = static_cast<std::int64_t>(height_);
  bool inside = false;  // whether the pixel before belongs to the mask
  for (std::size_t x = 0; x < changes_.size(); ++x) {
    const std::vector<std::uint32_t>& changes = changes_[x];
    const std::int64_t top = static_cast<std::int64_t>(x) * height;
    // A column that starts as the one before ends continues its run, across the edge.
    auto change = changes.begin();
    const bool first = change != changes.end() && *change == 0;
    if (first) ++change;
    if (first != inside) runs.change_at(top);
    inside = first;
    for (; change != changes.end(); ++change) {
      runs.change_at(top + *change);
      inside = !inside;
    }
  }
  return runs.finish(static_cast<std::int64_t>(before_.size()) * height);
}

}  // namespace glesam
