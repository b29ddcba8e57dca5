// The OpenVINO backend, on its C++ API.
#include <algorithm>
#include <limits>
#include <mutex>
#include <openvino/openvino.hpp>
#include <openvino/runtime/exception.hpp>

#include "cpu.h"
#include "engine.h"
#include "errors.h"
#include "openvino_graph.h"
#include "text.h"

namespace glesam {
namespace {

bool is_typed(const StageRecord& record) {
  return record.precision == "fp16" || record.precision == "bf16";
}

// Returns the requested precision. Without a request it is bfloat16 if a graph has that type and
// the device supports it, otherwise float32. OpenVINO's own default can be coarser than the graph.
ov::element::Type precision_of(const std::string& hint, const Bundle& bundle,
                               const std::vector<Stage>& stages,
                               const std::vector<std::string>& able) {
  if (hint == "bf16") return ov::element::bf16;
  if (hint == "fp16") return ov::element::f16;
  const bool typed = std::any_of(stages.begin(), stages.end(), [&bundle](Stage stage) {
    return bundle.manifest.stages.at(stage).precision == "bf16";
  });
  const bool can = std::find(able.begin(), able.end(), "BF16") != able.end();
  return typed && can ? ov::element::bf16 : ov::element::f32;
}

// Returns OpenVINO's name of a device: CPU, GPU, GPU.1, NPU.
std::string device_of(const std::string& device) {
  if (device.empty() || device == "cpu") return "CPU";
  std::string name = device;
  for (char& c : name) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (c == ':') c = '.';
  }
  return name;
}

FoundTensor found(const ov::Output<const ov::Node>& port) {
  Shape shape;
  for (const auto& axis : port.get_partial_shape()) {
    shape.push_back(axis.is_static() ? axis.get_length() : -1);
  }
  const auto type = port.get_element_type();
  return {port.get_any_name(), type == ov::element::f32 ? "float32" : type.get_type_name(), shape};
}

// A tensor can have several names. If one of them is in the manifest, that one is used.
std::vector<FoundTensor> found(const std::vector<ov::Output<const ov::Node>>& ports,
                               const std::vector<TensorSpec>& declared) {
  std::vector<FoundTensor> tensors;
  for (const auto& port : ports) {
    FoundTensor tensor = found(port);
    for (const TensorSpec& spec : declared) {
      if (port.get_names().count(spec.name) != 0) tensor.name = spec.name;
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::string brief(const std::exception& error) {
  const std::string text = error.what();
  // OpenVINO's message starts with its source location. The last line says what is wrong.
  std::size_t end = text.find_last_not_of(" \n");
  if (end == std::string::npos) return "no reason given";
  const std::size_t begin = text.find_last_of('\n', end);
  return one_line(text.substr(begin == std::string::npos ? 0 : begin, end + 1));
}

// OpenVINO's CPU plugin replaces the stack that signal handlers of its thread run on, and frees it
// with the plugin. If another thread, or an older plugin, goes last, the kernel is left with a stack
// that is gone, and the next signal ends the process by SIGSEGV. So the plugin is never freed.
ov::Core& process_core() {
  static ov::Core* const core = new ov::Core;
  return *core;
}

// The compiled graphs of a bundle, which several engines use from several threads.
class OpenvinoGraphs {
 public:
  // A graph, and how often it was compiled.
  struct Graph {
    ov::CompiledModel model;
    std::vector<std::string> outputs;
    int compiled = 1;
  };

  OpenvinoGraphs(const Bundle& bundle, const EngineOptions& options,
                 const std::vector<Stage>& stages)
      : bundle_(utf8_of(bundle.path)), sha256_(bundle.sha256), device_(device_of(options.device)) {
    const std::string& device = device_;
    const auto able = core_.get_property(device, ov::device::capabilities);
    const auto precision = precision_of(options.precision, bundle, stages, able);
    // By default OpenVINO also quantizes the inputs of layers that have only quantized weights.
    properties_ = {{ov::hint::inference_precision(precision)},
                   {ov::hint::dynamic_quantization_group_size(0)},
                   {ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)}};
    if (options.streams > 1) {
      properties_[ov::hint::performance_mode.name()] = ov::hint::PerformanceMode::THROUGHPUT;
      properties_.insert(ov::num_streams(options.streams));
    }
    if (options.threads > 0) properties_.insert(ov::inference_num_threads(options.threads));
    // Otherwise sums saturate, and layers have more error than quantization causes (docs/adr/0013).
    if (device == "CPU" && !adds_bytes_exactly()) {
      properties_.insert({"LP_TRANSFORMS_MODE", "NO"});
    }
    for (const Stage stage : stages) {
      graphs_[stage] = load(bundle, stage);
      const auto computed = graphs_[stage].model.get_property(ov::hint::inference_precision);
      if (!options.precision.empty() && computed != precision) {
        backend_error(cat("precision ", py_repr(options.precision), ": ", device,
                          " does not support it, openvino would use ", computed.to_string(),
                          "; leave out --precision"));
      }
    }
    description_ = {"openvino", core_.get_versions(device).begin()->second.buildNumber,
                    core_.get_property(device, ov::device::full_name), device};
  }

  const EngineDescription& describe() const { return description_; }

  std::vector<Stage> stages() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Stage> loaded;
    for (const auto& graph : graphs_) loaded.push_back(graph.first);
    return loaded;
  }

  // Returns a graph. `failed` is the number `compiled` of a graph whose run failed: it is compiled
  // again, unless that has happened since. When OpenVINO has no memory for a run, the compiled graph
  // keeps a part of that run's shapes, and later runs fail too.
  Graph get(Stage stage, int failed = 0) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Graph& graph = graphs_.at(stage);
    if (graph.compiled == failed) {
      Limits limits;
      limits.json_mib = std::numeric_limits<std::size_t>::max();  // it was read before
      const Bundle bundle = open_bundle(bundle_, limits);
      if (bundle.sha256 != sha256_) {
        bundle_error(cat(bundle_, ": changed since it was opened; open a predictor again"));
      }
      graph = load(bundle, stage);
      graph.compiled = failed + 1;
    }
    return graph;
  }

 private:
  Graph load(const Bundle& bundle, Stage stage) {
    const std::string& device = device_;
    const std::string path = utf8_of(bundle.graph_path(stage));
    const StageRecord& record = bundle.manifest.stages.at(stage);
    ov::CompiledModel model;
    try {
      if (is_typed(record)) {
        const auto graph = core_.read_model(path);
        without_casts(graph);
        model = core_.compile_model(graph, device, properties_);
      } else {
        model = core_.compile_model(path, device, properties_);
      }
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      engine_failed(error.what(),
                    cat(path, ": openvino cannot load it on ", device, ": ", brief(error)));
    }
    check_interface(path, "inputs", found(model.inputs(), record.inputs), record.inputs);
    check_interface(path, "outputs", found(model.outputs(), record.outputs), record.outputs);
    Graph made{model, {}};
    for (const TensorSpec& spec : record.outputs) made.outputs.push_back(spec.name);
    return made;
  }

  std::string bundle_, sha256_;  // the bundle's folder and the hash of its manifest
  std::string device_;           // OpenVINO's name
  ov::AnyMap properties_;
  ov::Core& core_ = process_core();
  EngineDescription description_;
  mutable std::mutex mutex_;
  std::map<Stage, Graph> graphs_;
};

class OpenvinoEngine final : public Engine {
 public:
  explicit OpenvinoEngine(std::shared_ptr<OpenvinoGraphs> graphs) : graphs_(std::move(graphs)) {
    for (const Stage stage : graphs_->stages()) prepare(stage);
  }

  const EngineDescription& describe() const override { return graphs_->describe(); }

  Tensors run(Stage stage, const Tensors& inputs) override {
    const auto found = requests_.find(stage);
    if (found == requests_.end()) backend_error(cat("the ", name_of(stage), " was not loaded"));
    Loaded& loaded = found->second;
    try {
      // Another session may have found that the graph's runs fail.
      if (loaded.failed || graphs_->get(stage).compiled != loaded.graph.compiled) prepare(stage);
      loaded.failed = true;
      for (const auto& [name, tensor] : inputs) {
        const ov::Shape shape(tensor.shape.begin(), tensor.shape.end());
        // OpenVINO only reads inputs, but its API takes them without const.
        loaded.request.set_tensor(name, {ov::element::f32, shape, const_cast<float*>(tensor.host)});
      }
      // In OpenVINO's CPU plugin, infer() discards an error of allocating memory and leaves the
      // outputs of the run before. wait() throws it.
      loaded.request.start_async();
      constexpr std::chrono::milliseconds kStep(5);  // a run that ends is noticed at once
      while (stop_ != nullptr && !loaded.request.wait_for(kStep)) {
        if (!stop_->is_set()) continue;
        loaded.request.cancel();
        break;
      }
      loaded.request.wait();
      Tensors outputs;
      for (const std::string& name : loaded.graph.outputs) {
        const ov::Tensor value = loaded.request.get_tensor(name);
        // The next run overwrites the request's own tensor. The copy keeps an image's features if
        // a later set_image fails.
        auto copy = std::make_shared<ov::Tensor>(ov::element::f32, value.get_shape());
        value.copy_to(*copy);
        const ov::Shape shape = copy->get_shape();
        const float* data = copy->data<float>();
        outputs[name] = {Shape(shape.begin(), shape.end()), data, std::move(copy)};
      }
      loaded.failed = false;
      return outputs;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const Error&) {
      throw;
    } catch (const ov::Cancelled&) {
      loaded.failed = false;
      stop_->check();
      backend_error("openvino cancelled a run that nobody cancelled");
    } catch (const std::exception& error) {
      engine_failed(error.what(),
                    cat("openvino failed in the ", name_of(stage), ": ", brief(error)));
    }
  }

  Tensor to_host(const Tensor& tensor) override { return tensor; }

  std::unique_ptr<Engine> share() override { return std::make_unique<OpenvinoEngine>(graphs_); }

 private:
  struct Loaded {
    OpenvinoGraphs::Graph graph;
    ov::InferRequest request;
    bool failed = false;  // whether the last run failed
  };

  // Creates the request of a stage, also after a run that failed.
  void prepare(Stage stage) {
    Loaded& loaded = requests_[stage];
    loaded.graph = graphs_->get(stage, loaded.failed ? loaded.graph.compiled : 0);
    loaded.request = loaded.graph.model.create_infer_request();
    loaded.failed = false;
  }

  std::shared_ptr<OpenvinoGraphs> graphs_;
  std::map<Stage, Loaded> requests_;
};

}  // namespace

std::unique_ptr<Engine> load_openvino(const Bundle& bundle, const EngineOptions& options,
                                      const std::vector<Stage>& stages) {
  try {
    return std::make_unique<OpenvinoEngine>(
        std::make_shared<OpenvinoGraphs>(bundle, options, stages));
  } catch (const ov::Exception& error) {  // no such device, no plugin for it
    engine_failed(error.what(), cat("openvino cannot run here: ", brief(error)));
  }
}

}  // namespace glesam
