// Reads "target" and an engine's profile.
#include "manifest_fields.h"
#include "text.h"

namespace glesam {
namespace {

// Returns 0 for "dynamic".
std::int64_t read_batch(const Node& node) {
  if (node.value.kind != Json::Kind::string) return read_integer(node, 1);
  read_word(node, {"dynamic"});
  return 0;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Reads one or two digits, a point and a digit, such as "8.9".
std::string read_capability(const Node& node) {
  std::string name = read_string(node);
  const std::size_t point = name.find('.');
  const bool fits = (point == 1 || point == 2) && name.size() == point + 2 && is_digit(name[0]) &&
                    is_digit(name[point - 1]) && is_digit(name.back());
  if (!fits) fail(node, "must be a version such as 8.9");
  return name;
}

EngineBuild read_build(const Node& node) {
  EngineBuild build;
  const auto hardware = [&](const Node& n) {
    const std::string name = read_word(n, {"none", "same_compute_capability", "ampere_plus"});
    build.runs_on_newer_gpus = name == "ampere_plus";
  };
  read_object(node, {{"version", into(build.version, read_string)},
                     {"system", into(build.system, read_string)},
                     {"compute_capabilities",
                      into_list(build.compute_capabilities, read_capability)},
                     {"source", checked(read_sha256)},
                     {"precision_seen_in", checked(word({"engine", "network"}))},
                     {"gpu", checked_or_null(read_string), false},
                     {"hardware_compatibility", hardware, false},
                     {"version_compatible", into(build.version_compatible, read_bool), false},
                     {"refittable", checked(read_bool), false},
                     {"stripped", into(build.stripped, read_bool), false},
                     {"optimization_level", checked_or_null(integer()), false},
                     {"timing_cache", checked_or_null(read_sha256), false},
                     {"changes", checked_list(read_string), false}});
  return build;
}

}  // namespace

Target read_target(const Node& node) {
  Target target;
  read_object(node, {{"engine", into(target.engine, word({"onnx", "tensorrt", "tensorrt-rtx"}))},
                     {"opset", checked(integer())},
                     {"batch", into(target.batch, read_batch)},
                     {"build", into_optional(target.build, read_build), false}});
  return target;
}

std::map<char, AxisRange> read_profile(const Node& node) {
  std::map<char, AxisRange> profile;
  read_map(node, [&](const std::string& key, const Node& value) {
    if (key.size() != 1 || key[0] < 'A' || key[0] > 'Z') {
      fail(node, cat("has an unknown key, ", py_repr(key)));
    }
    AxisRange& range = profile[key[0]];
    read_object(value, {{"min", into(range.min, integer(1))},
                        {"opt", into(range.opt, integer(1))},
                        {"max", into(range.max, integer(1))}});
  });
  return profile;
}

}  // namespace glesam
