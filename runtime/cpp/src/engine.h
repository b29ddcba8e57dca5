// What an inference engine is to the rest of the library, and how one is chosen.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bundle.h"
#include "tensor.h"

namespace glesam {

struct EngineDescription {
  std::string engine, version, provider, device;  // what really runs
};

// Loaded graphs of a bundle. One call at a time.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const EngineDescription& describe() const = 0;
  // Runs one graph on every input by its name in the manifest; outputs by name are left where the
  // engine computed them. They stay as they are until the stage has run again. Throws Error
  // (backend): the stage is not loaded, or the engine failed.
  virtual Tensors run(Stage stage, const Tensors& inputs) = 0;
  // A tensor of this engine on the host.
  virtual Tensor to_host(const Tensor& tensor) = 0;
};

struct EngineOptions {
  std::string device;     // empty: the backend's default
  std::string precision;  // "", "bf16", "fp16"
  std::string library;    // of engines that are loaded at run time; empty: by their usual names
  int threads = 0;        // 0: the engine's choice
};

// Loads the graphs of `stages`. `backend`: a name, or "auto" for the first that is compiled in and
// reads what the bundle holds. Throws Error (backend).
std::unique_ptr<Engine> load_engine(const Bundle& bundle, const std::string& backend,
                                    const EngineOptions& options, const std::vector<Stage>& stages);

std::vector<std::string> compiled_backends();

// Each is defined where its CMake option is on.
std::unique_ptr<Engine> load_openvino(const Bundle& bundle, const EngineOptions& options,
                                      const std::vector<Stage>& stages);
std::unique_ptr<Engine> load_onnxruntime(const Bundle& bundle, const EngineOptions& options,
                                         const std::vector<Stage>& stages);
std::unique_ptr<Engine> load_tensorrt(const Bundle& bundle, const EngineOptions& options,
                                      const std::vector<Stage>& stages);

// One input or output as an engine found it in its graph; -1 is an axis it leaves open.
struct FoundTensor {
  std::string name, type;  // "float32" or the engine's own word
  Shape shape;
};

// Refuses a graph whose inputs or outputs are not those of the manifest. An axis that the manifest
// fixes may be one the graph leaves open: shape inference does not always see through it.
void check_interface(const std::string& where, const char* kind,
                     const std::vector<FoundTensor>& found,
                     const std::vector<TensorSpec>& declared);

// The CUDA device of "cuda" or "cuda:N"; throws where `device` is neither, naming `known`.
int cuda_device_of(const std::string& device, const char* known);

}  // namespace glesam
