#include "typed_json.h"

#include <algorithm>
#include <cmath>

#include "text.h"

namespace glesam {
namespace {

constexpr int kMaxDepth = 200;

// Returns the parser's message without its error code and without the bytes that it read last,
// which may not be text.
std::string brief(std::string text) {
  if (const auto bracket = text.find("] "); bracket != std::string::npos)
    text.erase(0, bracket + 2);
  if (const auto read = text.find("; last read"); read != std::string::npos) text.erase(read);
  return text;
}

void expect_object(const Node& node) {
  if (!node.value.is_object()) fail(node, "must be an object");
}

// The parser makes integers beyond 64 bits real numbers.
bool is_integer(const Json& value) {
  constexpr double kBeyond = 9.2e18;
  return value.is_number_integer() ||
         (value.is_number_float() && std::abs(value.get<double>()) >= kBeyond);
}

}  // namespace

Json parse_json(std::string_view raw) {
  const auto check_depth = [](int depth, Json::parse_event_t event, Json&) {
    const bool opens = event == Json::parse_event_t::array_start ||
                       event == Json::parse_event_t::object_start;
    if (opens && depth >= kMaxDepth) {
      throw JsonError("maximum recursion depth exceeded while deserializing an object");
    }
    return true;
  };
  try {
    return Json::parse(raw.begin(), raw.end(), check_depth);
  } catch (const Json::exception& error) {
    throw JsonError(brief(error.what()));
  }
}

void fail(const Node& node, std::string_view what) {
  throw FieldError(cat("`", node.path, "`: ", what));
}

void read_object(const Node& node, std::initializer_list<Field> fields) {
  expect_object(node);
  for (const auto& [key, value] : node.value.items()) {
    for (const Field& field : fields) {
      if (key == field.name) field.read({value, cat(node.path, ".", key)});
    }
  }
  for (const Field& field : fields) {
    if (field.required && !node.value.contains(field.name)) {
      fail(node, cat("lacks the field ", field.name));
    }
  }
}

void read_map(const Node& node,
              const std::function<void(const std::string&, const Node&)>& read) {
  expect_object(node);
  for (const auto& [key, value] : node.value.items()) read(key, {value, node.path + "[...]"});
}

void read_array(const Node& node, const Reader& read, std::size_t length) {
  if (!node.value.is_array()) fail(node, "must be an array");
  const bool fixed_length = length != std::numeric_limits<std::size_t>::max();
  if (fixed_length && node.value.size() != length) fail(node, cat("must have ", length, " items"));
  for (std::size_t i = 0; i < node.value.size(); ++i) {
    read({node.value[i], cat(node.path, "[", i, "]")});
  }
}

std::string read_string(const Node& node) {
  if (!node.value.is_string()) fail(node, "must be a string");
  return node.value.get<std::string>();
}

bool read_bool(const Node& node) {
  if (!node.value.is_boolean()) fail(node, "must be true or false");
  return node.value.get<bool>();
}

std::string read_word(const Node& node, const std::vector<const char*>& words) {
  std::string text = read_string(node);
  if (std::find(words.begin(), words.end(), text) == words.end()) {
    fail(node, cat(py_repr(text), " is not known; known are ",
                   join(std::vector<std::string>(words.begin(), words.end()), ", ")));
  }
  return text;
}

std::int64_t read_integer(const Node& node, std::int64_t low) {
  using Limits = std::numeric_limits<std::int64_t>;
  const Json& read = node.value;
  if (!is_integer(read)) fail(node, "must be an integer");
  std::int64_t value = 0;
  if (read.is_number_float()) {
    value = read.get<double>() < 0 ? Limits::min() : Limits::max();
  } else if (read.is_number_unsigned() && read.get<std::uint64_t>() > std::uint64_t{Limits::max()}) {
    value = Limits::max();
  } else {
    value = read.get<std::int64_t>();
  }
  if (value < low) fail(node, cat("must be at least ", low));
  return value;
}

double read_number(const Node& node, const Range& range) {
  if (!node.value.is_number()) fail(node, "must be a number");
  const auto value = node.value.get<double>();
  if (!(value > range.above && value >= range.from && value <= range.to && value < range.below)) {
    fail(node, cat(general(value), " is out of range"));
  }
  return value;
}

}  // namespace glesam
