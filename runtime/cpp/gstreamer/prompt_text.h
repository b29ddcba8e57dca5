// Reads the prompts of the element's properties "points" and "boxes".
#pragma once

#include <string>
#include <vector>

namespace glesam_gst {

// B prompts with N points each, as glesam_prompts takes them. Vectors are empty if there are none.
struct Prompts {
  std::size_t count = 0, points_per_prompt = 0;  // B, N
  std::vector<double> points;                    // [B, N, 2]
  std::vector<float> labels;                     // [B, N]
  std::vector<double> boxes;                     // [B, 4]
};

// Reads both properties. Objects are separated by ";", the points of an object by spaces. A point is
// "x,y" or "x,y,label", a box "x0,y0,x1,y1".
//
// Returns what is wrong, or an empty text.
std::string read_prompts(const std::string& points, const std::string& boxes, Prompts& prompts);

}  // namespace glesam_gst
