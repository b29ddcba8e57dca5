#include "engine.h"

#include <algorithm>

#include "errors.h"
#include "interface.h"
#include "text.h"

namespace glesam {
namespace {

struct Backend {
  const char* name;
  bool reads_graphs;  // true: it reads ONNX graphs; false: engine files
  std::unique_ptr<Engine> (*load)(const Bundle&, const EngineOptions&, const std::vector<Stage>&);
};

const std::vector<Backend>& table() {
  static const std::vector<Backend> backends{
#ifdef GLESAM_WITH_OPENVINO
      {"openvino", true, load_openvino},
#endif
#ifdef GLESAM_WITH_ONNXRUNTIME
      {"onnxruntime", true, load_onnxruntime},
#endif
#ifdef GLESAM_WITH_TENSORRT
      {"tensorrt", false, load_tensorrt},
#endif
  };
  return backends;
}

std::string spell(const Shape& shape) {
  std::vector<std::string> axes;
  for (const std::int64_t axis : shape) axes.push_back(axis < 0 ? "?" : std::to_string(axis));
  return cat("[", join(axes, ", "), "]");
}

bool fits(const FoundTensor& found, const TensorSpec& spec) {
  if (found.type != "float32" || found.shape.size() != spec.shape.size()) return false;
  for (std::size_t i = 0; i < spec.shape.size(); ++i) {
    if (found.shape[i] < 0) continue;
    if (spec.shape[i].symbol != 0 || found.shape[i] != spec.shape[i].size) return false;
  }
  return true;
}

template <typename Named>
std::vector<std::string> names_of(const std::vector<Named>& tensors) {
  std::vector<std::string> names;
  for (const Named& tensor : tensors) names.push_back(tensor.name);
  return names;
}

}  // namespace

std::vector<std::string> compiled_backends() { return names_of(table()); }

std::unique_ptr<Engine> load_engine(const Bundle& bundle, const std::string& backend,
                                    const EngineOptions& options,
                                    const std::vector<Stage>& stages) {
  const std::string& target = bundle.manifest.target.engine;
  const bool graphs = target == "onnx";
  const auto compiled = compiled_backends();
  const std::string known = join(compiled, ", ");
  for (const Backend& candidate : table()) {
    if (backend == "auto" ? candidate.reads_graphs != graphs : backend != candidate.name) continue;
    if (candidate.reads_graphs != graphs) {
      backend_error(cat(utf8_of(bundle.path), ": contains ", target, " files, which ", backend,
                        " cannot read; use ", graphs ? "an engine bundle" : "an ONNX bundle"));
    }
    if (options.precision != "" && options.precision != "bf16" && options.precision != "fp16") {
      backend_error(cat("precision ", py_repr(options.precision), " is not known; known are bf16, ",
                        "fp16, and an empty name for the precision of the graphs"));
    }
    return candidate.load(bundle, options, stages);
  }
  if (backend == "auto") {
    backend_error(cat(utf8_of(bundle.path), ": contains ", target,
                      " files, but this library was compiled without a backend for them; it has ",
                      known.empty() ? "none" : known));
  }
  backend_error(cat("backend ", py_repr(backend), " is not known; known are auto",
                    known.empty() ? "" : ", ", known));
}

void check_interface(const std::string& where, const char* kind,
                     const std::vector<FoundTensor>& found,
                     const std::vector<TensorSpec>& declared) {
  auto have = names_of(found), want = names_of(declared);
  const std::string message =
      cat(where, ": ", kind, " are ", join(have, ", "), ", the manifest says ", join(want, ", "));
  std::sort(have.begin(), have.end());
  std::sort(want.begin(), want.end());
  if (have != want) backend_error(message);
  for (const FoundTensor& tensor : found) {
    const auto spec = std::find_if(declared.begin(), declared.end(),
                                   [&](const TensorSpec& s) { return s.name == tensor.name; });
    if (!fits(tensor, *spec)) {
      backend_error(cat(where, ": ", tensor.name, " is ", tensor.type, " ", spell(tensor.shape),
                        ", the manifest says float32 [", glesam::spell(spec->shape, ", "), "]"));
    }
  }
}

int cuda_device_of(const std::string& device, const char* known) {
  const std::string prefix = "cuda";
  if (device == prefix) return 0;
  const std::string digits =
      device.rfind(prefix + ":", 0) == 0 ? device.substr(prefix.size() + 1) : "";
  const bool numeric =
      !digits.empty() && digits.size() <= 3 &&
      std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!numeric) backend_error(cat("device ", py_repr(device), " is not known; known are ", known));
  return std::stoi(digits);
}

}  // namespace glesam
