// The interface of inference engines, and the choice of one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bundle.h"
#include "stop.h"
#include "tensor.h"

namespace glesam {

struct EngineDescription {
  std::string engine, version, provider, device;  // what is really used
};

// The loaded graphs of a bundle. It accepts one call at a time, and must outlive its tensors. Each
// further thread needs a share() of it.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const EngineDescription& describe() const = 0;
  // Runs one graph. Inputs and outputs have their names from the manifest. The outputs stay on the
  // engine's device. They are the caller's: no later run changes them. The engine may still compute
  // when this returns; then finish() and to_host() report its failures. Throws Error (backend) if
  // the stage is not loaded or the engine fails, and std::bad_alloc if it has not enough memory.
  virtual Tensors run(Stage stage, const Tensors& inputs) = 0;
  // Waits until all runs are complete. Throws as run() does if one of them failed.
  virtual void finish() {}
  // The number of the CUDA device whose tensors run() reads in place, wherever they come from. The
  // work that makes them must be complete. None: run() reads tensors of the host and its own only.
  virtual std::optional<int> cuda_device() const { return std::nullopt; }
  // Returns a tensor of this engine as a tensor on the host.
  virtual Tensor to_host(const Tensor& tensor) = 0;
  // Returns an engine on the same loaded graphs, for another thread. Each of the two accepts tensors
  // that the other returned, once the other's finish() has returned. Other calls of this engine may
  // run meanwhile. Throws Error (backend) if the graphs cannot be shared.
  virtual std::unique_ptr<Engine> share() = 0;
  // Makes runs end early, with the error of Stop::check, when `stop` is set. Engines whose runs cannot
  // be interrupted finish them.
  void watch(Stop* stop) { stop_ = stop; }

 protected:
  Stop* stop_ = nullptr;  // null: nothing ends a run early
};

struct EngineOptions {
  std::string device;     // empty: the backend's default
  std::string precision;  // "", "bf16", "fp16"
  std::string library;    // path of an engine that is loaded at run time; empty: its usual name
  int threads = 0;        // 0: the engine's default
  int streams = 1;        // runs at the same time
};

// Loads the graphs of `stages`. `backend` is a name, or "auto" for the first compiled backend that
// can read the bundle's graphs. Throws Error (backend).
std::unique_ptr<Engine> load_engine(const Bundle& bundle, const std::string& backend,
                                    const EngineOptions& options, const std::vector<Stage>& stages);

std::vector<std::string> compiled_backends();

// Each of these is defined if its CMake option is on.
std::unique_ptr<Engine> load_openvino(const Bundle& bundle, const EngineOptions& options,
                                      const std::vector<Stage>& stages);
std::unique_ptr<Engine> load_onnxruntime(const Bundle& bundle, const EngineOptions& options,
                                         const std::vector<Stage>& stages);
std::unique_ptr<Engine> load_tensorrt(const Bundle& bundle, const EngineOptions& options,
                                      const std::vector<Stage>& stages);

// One input or output as an engine reports it. -1 is a dynamic axis.
struct FoundTensor {
  std::string name, type;  // type: "float32", or the engine's own name of another type
  Shape shape;
};

// Throws Error (backend) if a graph's inputs or outputs are not those of the manifest. An axis that
// the manifest fixes may be dynamic in the graph, because shape inference cannot always resolve it.
void check_interface(const std::string& where, const char* kind,
                     const std::vector<FoundTensor>& found,
                     const std::vector<TensorSpec>& declared);

// Returns the number N of "cuda:N", or 0 for "cuda". Throws Error (backend) for any other name; the
// message lists `known`.
int cuda_device_of(const std::string& device, const char* known);

}  // namespace glesam
