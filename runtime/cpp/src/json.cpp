#include "json.h"

#include <nlohmann/json.hpp>

namespace glesam {
namespace {

constexpr std::size_t kMaxDepth = 200;

// Returns the parser's message without its error code and without the bytes that it read last,
// which may not be text.
std::string brief(std::string text) {
  if (const auto bracket = text.find("] "); bracket != std::string::npos)
    text.erase(0, bracket + 2);
  if (const auto read = text.find("; last read"); read != std::string::npos) text.erase(read);
  return text;
}

// Builds the tree from the parser's events. It does not recurse, so deep nesting cannot exhaust the
// stack.
class Builder {
 public:
  using Parser = nlohmann::json;

  bool null() { return add({}); }
  bool boolean(bool value) {
    Json node;
    node.kind = Json::Kind::boolean;
    node.flag = value;
    return add(std::move(node));
  }
  bool number_integer(Parser::number_integer_t value) {
    return integer(static_cast<double>(value), std::to_string(value));
  }
  bool number_unsigned(Parser::number_unsigned_t value) {
    return integer(static_cast<double>(value), std::to_string(value));
  }
  bool number_float(Parser::number_float_t value, const std::string& written) {
    if (written.find_first_of(".eE") == std::string::npos) return integer(value, written);
    Json node;
    node.kind = Json::Kind::real;
    node.number = value;
    return add(std::move(node));
  }
  bool string(std::string& value) {
    Json node;
    node.kind = Json::Kind::string;
    node.text = std::move(value);
    return add(std::move(node));
  }
  bool binary(Parser::binary_t&) { return false; }  // not in JSON text
  bool start_object(std::size_t) { return open(Json::Kind::object); }
  bool start_array(std::size_t) { return open(Json::Kind::array); }
  bool key(std::string& name) {
    keys_.back() = std::move(name);
    return true;
  }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) {
    throw JsonError(brief(error.what()));
  }

  Json take() { return std::move(root_); }

 private:
  bool integer(double value, std::string digits) {
    Json node;
    node.kind = Json::Kind::integer;
    node.number = value;
    node.text = std::move(digits);
    return add(std::move(node));
  }
  bool open(Json::Kind kind) {
    if (open_.size() == kMaxDepth) {
      throw JsonError("maximum recursion depth exceeded while deserializing an object");
    }
    Json node;
    node.kind = kind;
    open_.push_back(std::move(node));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    Json done = std::move(open_.back());
    open_.pop_back();
    keys_.pop_back();
    return add(std::move(done));
  }
  bool add(Json node) {
    if (open_.empty()) {
      root_ = std::move(node);
    } else if (open_.back().kind == Json::Kind::array) {
      open_.back().items.push_back(std::move(node));
    } else {
      open_.back().members.emplace_back(std::move(keys_.back()), std::move(node));
    }
    return true;
  }

  Json root_;
  std::vector<Json> open_;         // the containers that are not complete yet
  std::vector<std::string> keys_;  // for each of them, the key of the next value
};

}  // namespace

const Json* Json::find(std::string_view key) const {
  for (auto member = members.rbegin(); member != members.rend(); ++member) {
    if (member->first == key) return &member->second;
  }
  return nullptr;
}

Json parse_json(std::string_view raw) {
  Builder builder;
  nlohmann::json::sax_parse(raw.begin(), raw.end(), &builder);
  return builder.take();
}

}  // namespace glesam
