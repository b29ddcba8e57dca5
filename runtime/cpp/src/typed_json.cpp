#include "typed_json.h"

#include <algorithm>
#include <charconv>

#include "text.h"

namespace glesam {
namespace {

void expect_object(const Node& node) {
  if (node.value.kind != Json::Kind::object) fail(node, "must be an object");
}

}  // namespace

void fail(const Node& node, std::string_view what) {
  throw FieldError(cat("`", node.path, "`: ", what));
}

void read_object(const Node& node, std::initializer_list<Field> fields) {
  expect_object(node);
  for (const auto& [key, value] : node.value.members) {
    for (const Field& field : fields) {
      if (key == field.name) field.read({value, cat(node.path, ".", key)});
    }
  }
  for (const Field& field : fields) {
    if (field.required && node.value.find(field.name) == nullptr) {
      fail(node, cat("lacks the field ", field.name));
    }
  }
}

void read_map(const Node& node,
              const std::function<void(const std::string&, const Node&)>& read) {
  expect_object(node);
  for (const auto& [key, value] : node.value.members) read(key, {value, node.path + "[...]"});
}

void read_array(const Node& node, const Reader& read, std::size_t length) {
  if (node.value.kind != Json::Kind::array) fail(node, "must be an array");
  const auto& items = node.value.items;
  const bool fixed_length = length != std::numeric_limits<std::size_t>::max();
  if (fixed_length && items.size() != length) fail(node, cat("must have ", length, " items"));
  for (std::size_t i = 0; i < items.size(); ++i) read({items[i], cat(node.path, "[", i, "]")});
}

std::string read_string(const Node& node) {
  if (node.value.kind != Json::Kind::string) fail(node, "must be a string");
  return node.value.text;
}

bool read_bool(const Node& node) {
  if (node.value.kind != Json::Kind::boolean) fail(node, "must be true or false");
  return node.value.flag;
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
  if (node.value.kind != Json::Kind::integer) fail(node, "must be an integer");
  const std::string& digits = node.value.text;
  std::int64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (result.ec == std::errc::result_out_of_range) {
    value = digits.front() == '-' ? std::numeric_limits<std::int64_t>::min()
                                  : std::numeric_limits<std::int64_t>::max();
  }
  if (value < low) fail(node, cat("must be at least ", low));
  return value;
}

double read_number(const Node& node, const Range& range) {
  const bool numeric =
      node.value.kind == Json::Kind::integer || node.value.kind == Json::Kind::real;
  if (!numeric) fail(node, "must be a number");
  const double value = node.value.number;
  if (!(value > range.above && value >= range.from && value <= range.to && value < range.below)) {
    fail(node, cat(general(value), " is out of range"));
  }
  return value;
}

}  // namespace glesam
