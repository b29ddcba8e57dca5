// The frames of test_frames.py, which are the tensors of a safetensors file.
//
// Case i: "i.memory" uint8, the memory that holds the planes; "i.layout" int64 [18]: format, width,
// height, the offset of each plane's top row in the memory, three strides, region (x, y, width,
// height), matrix, range, and 1 if set_image is to run too; the rest is 0.
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "glesam.h"
#include "safetensors.h"

namespace glesam_tests {

struct FrameCase {
  std::vector<std::uint8_t> memory;  // on the heap, outside of which a sanitizer sees every read
  glesam::Frame frame;               // without planes
  std::ptrdiff_t offsets[3];
  bool runs = false;  // whether set_image is to run too

  // Returns the frame with its planes in a copy of `memory`.
  glesam::Frame in(const std::uint8_t* copy) const {
    glesam::Frame placed = frame;
    for (int i = 0; i < 3; ++i) placed.planes[i] = copy + offsets[i];
    return placed;
  }
};

inline bool has_case(const glesam::StoredTensors& cases, int index) {
  return cases.count(std::to_string(index) + ".memory") != 0;
}

inline FrameCase read_case(const glesam::StoredTensors& cases, int index) {
  const std::string name = std::to_string(index);
  FrameCase read;
  read.memory = cases.at(name + ".memory").bytes;
  std::int64_t layout[18];
  std::memcpy(layout, cases.at(name + ".layout").bytes.data(), sizeof layout);
  const auto whole = [&layout](int i) { return static_cast<int>(layout[i]); };
  glesam::Frame& frame = read.frame;
  frame.format = static_cast<glesam::Format>(layout[0]);
  frame.width = whole(1);
  frame.height = whole(2);
  for (int i = 0; i < 3; ++i) {
    read.offsets[i] = static_cast<std::ptrdiff_t>(layout[3 + i]);
    frame.strides[i] = static_cast<std::ptrdiff_t>(layout[6 + i]);
  }
  frame.region = {whole(9), whole(10), whole(11), whole(12)};
  frame.matrix = static_cast<glesam::YuvMatrix>(layout[13]);
  frame.range = static_cast<glesam::YuvRange>(layout[14]);
  read.runs = layout[15] != 0;
  return read;
}

inline void require(const glesam::Status& status) {
  if (!status) throw std::runtime_error(status.message);
}

}  // namespace glesam_tests
