// Reading typed values from JSON. The first error of a document is at the field of the Python
// runtime's.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "json.h"

namespace glesam {

// A missing or wrong field: "`$.version`: must be an integer".
class FieldError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A value and its path in the document, such as "$.model.gamma".
struct Node {
  const Json& value;
  std::string path = "$";
};

inline bool is_null(const Node& node) { return node.value.kind == Json::Kind::null; }

[[noreturn]] void fail(const Node& node, std::string_view what);

// Checks a value, and may keep it.
using Reader = std::function<void(const Node&)>;

struct Field {
  const char* name;
  Reader read;
  bool required = true;
};

// Reads the members in the order of the document, and ignores unknown ones. Then it reports the first
// required member that is missing.
void read_object(const Node& node, std::initializer_list<Field> fields);

// Reads every member of an object whose keys are data.
void read_map(const Node& node,
              const std::function<void(const std::string& key, const Node& value)>& read);

void read_array(const Node& node, const Reader& read,
                std::size_t length = std::numeric_limits<std::size_t>::max());

std::string read_string(const Node& node);
bool read_bool(const Node& node);

// Reads a string that must be one of the words.
std::string read_word(const Node& node, const std::vector<const char*>& words);

// Reads an integer of at least `low`. A value beyond 64 bits becomes the nearest that fits.
std::int64_t read_integer(const Node& node, std::int64_t low);

struct Range {
  double above = -std::numeric_limits<double>::infinity();  // exclusive
  double from = -std::numeric_limits<double>::infinity();   // inclusive
  double to = std::numeric_limits<double>::infinity();      // inclusive
  double below = std::numeric_limits<double>::infinity();   // exclusive
};
double read_number(const Node& node, const Range& range = {});

// Functions that return a value, for the readers below.

inline auto integer(std::int64_t low = std::numeric_limits<std::int64_t>::min()) {
  return [low](const Node& node) { return read_integer(node, low); };
}
inline auto number(const Range& range = {}) {
  return [range](const Node& node) { return read_number(node, range); };
}
inline auto word(std::initializer_list<const char*> words) {
  return [words = std::vector<const char*>(words)](const Node& node) {
    return read_word(node, words);
  };
}
// Returns whether the word is `yes`. The other word means no.
inline auto is_word(const char* yes, const char* no) {
  return [yes, no](const Node& node) { return read_word(node, {no, yes}) == yes; };
}

// Readers that keep a value.

template <typename Value, typename Read>
Reader into(Value& value, Read read) {
  return [&value, read](const Node& node) { value = read(node); };
}
// null empties it.
template <typename Value, typename Read>
Reader into_optional(std::optional<Value>& value, Read read) {
  return [&value, read](const Node& node) {
    value.reset();
    if (!is_null(node)) value = read(node);
  };
}
template <typename Value, typename Read>
Reader into_list(std::vector<Value>& values, Read read) {
  return [&values, read](const Node& node) {
    values.clear();
    read_array(node, [&](const Node& item) { values.push_back(read(item)); });
  };
}

// Readers for fields that only inform: they check a value and keep nothing.

template <typename Read>
Reader checked(Read read) {
  return [read](const Node& node) { static_cast<void>(read(node)); };
}
template <typename Read>
Reader checked_or_null(Read read) {
  return [read](const Node& node) {
    if (!is_null(node)) static_cast<void>(read(node));
  };
}
template <typename Read>
Reader checked_list(Read read) {
  return [read](const Node& node) {
    read_array(node, [&](const Node& item) { static_cast<void>(read(item)); });
  };
}

}  // namespace glesam
