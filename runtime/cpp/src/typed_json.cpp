#include "typed_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text.h"

namespace glesam {
namespace {

[[noreturn]] void fail_kind(const Node& node, const char* expected) {
  fail(node, cat("Expected `", expected, "`, got `", kind_name(node.value), "`"));
}

std::string bound(double value) {  // a float as Python prints it: 0 is 0.0, 1e-6 is 1e-06
  const std::string text = general(value, value == std::floor(value) ? 17 : 15);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

}  // namespace

void fail(const Node& node, std::string_view what) {
  throw FieldError(node.path == "$" ? std::string(what) : cat(what, " - at `", node.path, "`"));
}

void fail_word(const std::string& word, const std::string& where) {
  throw FieldError(cat("Invalid enum value '", word, "' - at ", where));
}

void expect_object(const Node& node, const char* expected) {
  if (node.value.kind != Json::Kind::object) fail_kind(node, expected);
}

void read_object(const Node& node, std::initializer_list<Field> fields, const char* expected) {
  expect_object(node, expected);
  for (const auto& [key, value] : node.value.members) {
    for (const Field& field : fields) {
      if (key == field.name) field.read({value, cat(node.path, ".", key)});
    }
  }
  for (const Field& field : fields) {
    if (field.required && node.value.find(field.name) == nullptr) {
      fail(node, cat("Object missing required field `", field.name, "`"));
    }
  }
}

void read_map(const Node& node, const std::function<void(const std::string&, const Node&)>& read,
              const char* expected) {
  expect_object(node, expected);
  for (const auto& [key, value] : node.value.members) read(key, {value, node.path + "[...]"});
}

void read_array(const Node& node, const std::function<void(const Node&)>& read,
                std::size_t length) {
  if (node.value.kind != Json::Kind::array) fail_kind(node, "array");
  const auto& items = node.value.items;
  const bool fixed_length = length != std::numeric_limits<std::size_t>::max();
  if (fixed_length && items.size() != length)
    fail(node, cat("Expected `array` of length ", length));
  for (std::size_t i = 0; i < items.size(); ++i) read({items[i], cat(node.path, "[", i, "]")});
}

std::string read_string(const Node& node, const char* expected) {
  if (node.value.kind != Json::Kind::string) fail_kind(node, expected);
  return node.value.text;
}

bool read_bool(const Node& node) {
  if (node.value.kind != Json::Kind::boolean) fail_kind(node, "bool");
  return node.value.flag;
}

std::string read_word(const Node& node, std::initializer_list<const char*> words,
                      const char* expected) {
  if (node.value.kind != Json::Kind::string) fail_kind(node, expected);
  const std::string& text = node.value.text;
  if (std::none_of(words.begin(), words.end(), [&](const char* word) { return text == word; })) {
    fail_word(text, cat("`", node.path, "`"));
  }
  return text;
}

std::int64_t read_integer(const Node& node, std::int64_t low, const char* expected) {
  if (node.value.kind != Json::Kind::integer) fail_kind(node, expected);
  const std::string& digits = node.value.text;
  std::int64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (result.ec == std::errc::result_out_of_range) {
    value = digits.front() == '-' ? std::numeric_limits<std::int64_t>::min()
                                  : std::numeric_limits<std::int64_t>::max();
  }
  if (value < low) fail(node, cat("Expected `int` >= ", low));
  return value;
}

double read_number(const Node& node, const Range& range, const char* expected) {
  const bool numeric =
      node.value.kind == Json::Kind::integer || node.value.kind == Json::Kind::real;
  if (!numeric) fail_kind(node, expected);
  const double value = node.value.number;
  if (!(value > range.above)) fail(node, cat("Expected `float` > ", bound(range.above)));
  if (!(value >= range.from)) fail(node, cat("Expected `float` >= ", bound(range.from)));
  if (!(value <= range.to)) fail(node, cat("Expected `float` <= ", bound(range.to)));
  if (!(value < range.below)) fail(node, cat("Expected `float` < ", bound(range.below)));
  return value;
}

bool is_null(const Node& node) { return node.value.kind == Json::Kind::null; }

}  // namespace glesam
