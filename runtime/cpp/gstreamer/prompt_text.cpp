#include "prompt_text.h"

#include <glib.h>

#include <algorithm>

namespace glesam_gst {
namespace {

// Returns the parts of a text between separators, without those that hold spaces only.
std::vector<std::string> parts_of(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    if (part.find_first_not_of(" \t\n") != std::string::npos) parts.push_back(part);
    begin = end + 1;
  }
  return parts;
}

// Reads numbers with commas between them. Returns false if there is anything else.
bool read_numbers(const std::string& text, std::vector<double>& numbers) {
  const char* at = text.c_str();
  for (;;) {
    char* end = nullptr;
    numbers.push_back(g_ascii_strtod(at, &end));  // the same in each locale
    if (end == at) return false;
    at = end;
    while (*at == ' ') ++at;
    if (*at == '\0') return true;
    if (*at++ != ',') return false;
  }
}

std::string read_points(const std::string& text, Prompts& prompts) {
  for (const std::string& object : parts_of(text, ';')) {
    const std::vector<std::string> clicks = parts_of(object, ' ');
    if (prompts.count == 0) prompts.points_per_prompt = clicks.size();
    if (clicks.size() != prompts.points_per_prompt) {
      return "points: objects have different numbers of points; give each the same number";
    }
    for (const std::string& click : clicks) {
      std::vector<double> numbers;
      if (!read_numbers(click, numbers) || numbers.size() < 2 || numbers.size() > 3) {
        return "points: \"" + click + "\" is not x,y or x,y,label";
      }
      prompts.points.insert(prompts.points.end(), {numbers[0], numbers[1]});
      prompts.labels.push_back(numbers.size() == 3 ? static_cast<float>(numbers[2]) : 1.0F);
    }
    ++prompts.count;
  }
  return "";
}

}  // namespace

std::string read_prompts(const std::string& points, const std::string& boxes, Prompts& prompts) {
  prompts = {};
  std::string problem = read_points(points, prompts);
  if (!problem.empty()) return problem;
  const std::vector<std::string> objects = parts_of(boxes, ';');
  if (prompts.count != 0 && !objects.empty() && objects.size() != prompts.count) {
    return "points and boxes: " + std::to_string(prompts.count) + " objects with points, but " +
           std::to_string(objects.size()) + " boxes; give each object both, or only one of them";
  }
  for (const std::string& object : objects) {
    std::vector<double> numbers;
    if (!read_numbers(object, numbers) || numbers.size() != 4) {
      return "boxes: \"" + object + "\" is not x0,y0,x1,y1";
    }
    prompts.boxes.insert(prompts.boxes.end(), numbers.begin(), numbers.end());
  }
  prompts.count = std::max(prompts.count, objects.size());
  if (prompts.count == 0) return "no prompt: set points=x,y or boxes=x0,y0,x1,y1";
  return "";
}

}  // namespace glesam_gst
