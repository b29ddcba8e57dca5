// Reads "target" and an engine's profile.
#include "manifest_fields.h"
#include "text.h"

namespace glesam {
namespace {

constexpr std::int64_t kAnyInteger = std::numeric_limits<std::int64_t>::min();

// Returns 0 for "dynamic".
std::int64_t read_batch(const Node& node) {
  if (node.value.kind != Json::Kind::string) return read_integer(node, 1);
  read_word(node, {"dynamic"});
  return 0;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Reads one or two digits, a point and a digit, such as "8.9". A final line break is accepted, as by
// the "$" of the Python reader's pattern.
std::string read_capability(const Node& node) {
  const std::string text = read_string(node);
  std::string_view name = text;
  if (!name.empty() && name.back() == '\n') name.remove_suffix(1);
  const std::size_t point = name.find('.');
  const bool fits = (point == 1 || point == 2) && name.size() == point + 2 && is_digit(name[0]) &&
                    is_digit(name[point - 1]) && is_digit(name.back());
  if (!fits) fail(node, "must be a version such as 8.9");
  return text;
}

EngineBuild read_build(const Node& node) {
  EngineBuild build;
  const auto flag = [](bool& into) { return [&into](const Node& n) { into = read_bool(n); }; };
  bool refittable = false;
  const auto words = [](const Node& n) {
    read_array(n, [](const Node& item) { read_string(item); });
  };
  read_object(node,
              {{"version", [&](const Node& n) { build.version = read_string(n); }},
               {"system", [&](const Node& n) { build.system = read_string(n); }},
               {"compute_capabilities",
                [&](const Node& n) {
                  build.compute_capabilities.clear();
                  read_array(n, [&](const Node& item) {
                    build.compute_capabilities.push_back(read_capability(item));
                  });
                }},
               {"source", [](const Node& n) { read_sha256(n); }},
               {"precision_seen_in",
                [](const Node& n) {
                  read_word(n, {"engine", "network"});
                }},
               {"gpu",
                [](const Node& n) {
                  if (!is_null(n)) read_string(n);
                },
                false},
               {"hardware_compatibility",
                [&](const Node& n) {
                  build.runs_on_newer_gpus = read_word(n, {"none", "same_compute_capability",
                                                           "ampere_plus"}) == "ampere_plus";
                },
                false},
               {"version_compatible", flag(build.version_compatible), false},
               {"refittable", flag(refittable), false},
               {"stripped", flag(build.stripped), false},
               {"optimization_level",
                [](const Node& n) {
                  if (!is_null(n)) read_integer(n, kAnyInteger);
                },
                false},
               {"timing_cache",
                [](const Node& n) {
                  if (!is_null(n)) read_sha256(n);
                },
                false},
               {"changes", words, false}});
  return build;
}

}  // namespace

Target read_target(const Node& node) {
  Target target;
  read_object(node, {{"engine",
                      [&](const Node& n) {
                        target.engine = read_word(n, {"onnx", "tensorrt", "tensorrt-rtx"});
                      }},
                     {"opset", [](const Node& n) { read_integer(n, kAnyInteger); }},
                     {"batch", [&](const Node& n) { target.batch = read_batch(n); }},
                     {"build",
                      [&](const Node& n) {
                        target.build.reset();
                        if (!is_null(n)) target.build = read_build(n);
                      },
                      false}});
  return target;
}

std::map<char, AxisRange> read_profile(const Node& node) {
  std::map<char, AxisRange> profile;
  read_map(
      node,
      [&](const std::string& key, const Node& value) {
        const bool fits = !key.empty() && key[0] >= 'A' && key[0] <= 'Z' &&
                          (key.size() == 1 || (key.size() == 2 && key[1] == '\n'));
        if (!fits) fail(node, cat("has an unknown key, ", py_repr(key)));
        AxisRange range;
        read_object(value, {{"min", [&](const Node& n) { range.min = read_integer(n, 1); }},
                            {"opt", [&](const Node& n) { range.opt = read_integer(n, 1); }},
                            {"max", [&](const Node& n) { range.max = read_integer(n, 1); }}});
        profile[key[0]] = range;
      });
  return profile;
}

}  // namespace glesam
