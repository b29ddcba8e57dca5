// The one place that knows what "target" may hold.
#include "manifest_fields.h"

namespace glesam {
namespace {

// 0 is "dynamic".
std::int64_t read_batch(const Node& node) {
  if (node.value.kind != Json::Kind::string) return read_integer(node, 1, "int | str");
  read_word(node, {"dynamic"});
  return 0;
}

}  // namespace

Target read_target(const Node& node) {
  Target target;
  const Json* engine = node.value.kind == Json::Kind::object ? node.value.find("engine") : nullptr;
  const bool is_graph = engine == nullptr || engine->text == "onnx";
  read_object(node, {{"engine",
                      [&](const Node& n) {
                        target.engine = read_word(n, {"onnx", "tensorrt", "tensorrt-rtx"});
                      }},
                     {"opset",
                      [](const Node& n) {
                        if (!is_null(n)) read_integer(n, std::numeric_limits<std::int64_t>::min());
                      },
                      is_graph},
                     {"batch", [&](const Node& n) { target.batch = read_batch(n); }},
                     {"engine_version",
                      [&](const Node& n) {
                        if (!is_null(n)) target.engine_version = read_string(n);
                      },
                      false},
                     {"compute_capabilities",
                      [&](const Node& n) {
                        target.compute_capabilities.clear();
                        if (is_null(n)) return;
                        read_array(n, [&](const Node& item) {
                          target.compute_capabilities.push_back(read_string(item));
                        });
                      },
                      false}});
  return target;
}

}  // namespace glesam
