// Reading typed values from JSON. The first error of a document has the field of the Python runtime's.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
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

[[noreturn]] void fail(const Node& node, std::string_view what);

void expect_object(const Node& node);

struct Field {
  const char* name;
  std::function<void(const Node&)> read;
  bool required = true;
};

// Reads the members in the order of the document, so that the first error in it is reported, and
// ignores unknown members. Then it reports the first required member that is missing.
void read_object(const Node& node, std::initializer_list<Field> fields);

// Reads every member of an object whose keys are data.
void read_map(const Node& node,
              const std::function<void(const std::string& key, const Node& value)>& read);

void read_array(const Node& node, const std::function<void(const Node&)>& read,
                std::size_t length = std::numeric_limits<std::size_t>::max());

std::string read_string(const Node& node);
bool read_bool(const Node& node);

// Reads a string that must be one of the words.
std::string read_word(const Node& node, std::initializer_list<const char*> words);

// Reads an integer of at least `low`. A value beyond 64 bits becomes the nearest that fits.
std::int64_t read_integer(const Node& node, std::int64_t low);

struct Range {
  double above = -std::numeric_limits<double>::infinity();  // exclusive
  double from = -std::numeric_limits<double>::infinity();   // inclusive
  double to = std::numeric_limits<double>::infinity();      // inclusive
  double below = std::numeric_limits<double>::infinity();   // exclusive
};
double read_number(const Node& node, const Range& range = {});

bool is_null(const Node& node);

}  // namespace glesam
