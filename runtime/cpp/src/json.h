// A JSON document as a tree that keeps the order of members, for readers that say what is wrong.
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
  double number = 0;  // of an integer too, rounded
  std::string text;   // of a string; of an integer its digits, which no type may be able to hold
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> members;  // as written; of a repeated key all

  // The last member of that key, or null.
  const Json* find(std::string_view key) const;
};

class JsonError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws JsonError for what is not JSON in UTF-8, or is nested deeper than 200.
Json parse_json(std::string_view raw);

// The name of its kind as the Python runtime spells it: "int", "str".
const char* kind_name(const Json& value);

}  // namespace glesam
