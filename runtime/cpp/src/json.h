// A JSON document as a tree. It keeps the order of members, so that a reader can report the first
// error.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace glesam {

struct Json {
  enum class Kind { null, boolean, integer, real, string, array, object };

  Kind kind = Kind::null;
  bool flag = false;
  double number = 0;  // the value of a real, or of an integer, rounded
  std::string text;   // a string's content, or an integer's digits, as it may exceed every type
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> members;  // in document order, with repeated keys

  // Returns the last member with that key, or null.
  const Json* find(std::string_view key) const;
};

class JsonError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws JsonError if `raw` is not JSON in UTF-8 or is nested deeper than 200 levels.
Json parse_json(std::string_view raw);

}  // namespace glesam
