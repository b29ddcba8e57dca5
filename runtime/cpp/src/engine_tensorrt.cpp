// The backend for engine files of TensorRT and TensorRT-RTX. All stages run on one stream. Buffers
// have the largest size of the profile. The next stage reads a stage's output in place. A stage
// that runs while its earlier outputs are in use writes to other buffers.
#include <algorithm>

#include "bytes.h"
#include "engine.h"
#include "errors.h"
#include "tensorrt_fit.h"
#include "tensorrt_libraries.h"
#include "text.h"

namespace glesam {
namespace {

// Memory on the GPU.
class DeviceBuffer {
 public:
  DeviceBuffer(const Cuda& cuda, std::size_t bytes) : cuda_(cuda) {
    cuda.require(cuda.malloc(&data_, std::max<std::size_t>(bytes, 1)), "allocating memory");
  }
  ~DeviceBuffer() { cuda_.free(data_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  float* data() const { return static_cast<float*>(data_); }

 private:
  const Cuda& cuda_;
  void* data_ = nullptr;
};

Shape shape_of(const nvinfer1::Dims& dims) {
  return {dims.d, dims.d + std::max<std::int32_t>(dims.nbDims, 0)};
}

nvinfer1::Dims dims_of(const Shape& shape) {
  nvinfer1::Dims dims{};
  if (shape.size() > nvinfer1::Dims::MAX_DIMS) backend_error("a tensor of too many axes");
  dims.nbDims = static_cast<std::int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), dims.d);
  return dims;
}

// The buffers for one output of a stage, all of the same size. Tensors that were returned share
// them.
class OutputBuffers {
 public:
  OutputBuffers(const Cuda& cuda, std::size_t bytes) : cuda_(cuda), bytes_(bytes) { unused(); }

  // Returns a buffer that no tensor uses, and allocates one if all are in use.
  std::shared_ptr<DeviceBuffer> unused() {
    for (const auto& buffer : buffers_) {
      if (buffer.use_count() == 1) return buffer;
    }
    buffers_.push_back(std::make_shared<DeviceBuffer>(cuda_, bytes_));
    return buffers_.back();
  }

 private:
  const Cuda& cuda_;
  std::size_t bytes_;
  std::vector<std::shared_ptr<DeviceBuffer>> buffers_;
};

// An engine, and the names of its tensors in the manifest's order.
struct Graph {
  std::unique_ptr<nvinfer1::ICudaEngine> engine;
  std::vector<std::string> inputs, outputs;
  std::string path;
};

// What the engines of several threads share: the libraries and the weights on the GPU.
class TensorrtGraphs {
 public:
  TensorrtGraphs(const Bundle& bundle, const EngineOptions& options,
                 const std::vector<Stage>& stages)
      : cuda(options.device,
             cuda_device_of(options.device.empty() ? "cuda" : options.device, "cuda, cuda:N")),
        library_(bundle.manifest.target.engine, options.library),
        runtime_(library_.create_runtime(log)) {
    const Target& target = bundle.manifest.target;
    if (!options.precision.empty()) {
      backend_error(
          "precision: an engine file has a fixed precision; export the bundle in another one");
    }
    check_library(bundle, library_.version());
    check_gpu(bundle, cuda.compute_capability());
    for (const Stage stage : stages) load(bundle, stage);
    description = {target.engine, library_.version(), cat("compute ", cuda.compute_capability()),
                   cat("cuda:", cuda.device())};
  }

  TensorrtLog log;
  const Cuda cuda;
  EngineDescription description;

 private:
  void load(const Bundle& bundle, Stage stage) {
    const std::string path = utf8_of(bundle.graph_path(stage));
    const StageRecord& record = bundle.manifest.stages.at(stage);
    std::string plan;
    try {
      plan = read_file(path);
    } catch (const ReadError& error) {
      backend_error(cat(path, ": cannot be read (", error.what(), ")"));
    }
    Graph graph;
    graph.engine.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (!graph.engine) {
      const std::string reason = log.take("no reason given");
      engine_failed(reason, cat(path, ": ", bundle.manifest.target.engine, " ", library_.version(),
                                " cannot load it: ", reason,
                                "; build it for this GPU and version with glesam-export"));
    }
    check_interface(path, "inputs", found(*graph.engine, true), record.inputs);
    check_interface(path, "outputs", found(*graph.engine, false), record.outputs);
    for (const TensorSpec& spec : record.inputs) graph.inputs.push_back(spec.name);
    for (const TensorSpec& spec : record.outputs) graph.outputs.push_back(spec.name);
    graph.path = path;
    graphs.emplace(stage, std::move(graph));
  }

  static std::vector<FoundTensor> found(const nvinfer1::ICudaEngine& engine, bool inputs) {
    const auto mode = inputs ? nvinfer1::TensorIOMode::kINPUT : nvinfer1::TensorIOMode::kOUTPUT;
    std::vector<FoundTensor> tensors;
    for (std::int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
      const char* name = engine.getIOTensorName(i);
      if (engine.getTensorIOMode(name) != mode) continue;
      const auto type = engine.getTensorDataType(name);
      tensors.push_back(
          {name,
           type == nvinfer1::DataType::kFLOAT ? "float32" : cat("of type ", static_cast<int>(type)),
           shape_of(engine.getTensorShape(name))});
    }
    return tensors;
  }

  TensorrtLibrary library_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;

 public:
  std::map<Stage, Graph> graphs;  // freed before the runtime
};

// What a session needs to run an engine: its context, and buffers by the name of their tensor.
struct Loaded {
  std::unique_ptr<nvinfer1::IExecutionContext> context;
  std::map<std::string, DeviceBuffer> input_buffers;
  std::map<std::string, OutputBuffers> output_buffers;
};

class TensorrtEngine final : public Engine {
 public:
  explicit TensorrtEngine(std::shared_ptr<TensorrtGraphs> graphs)
      : graphs_(std::move(graphs)), log_(graphs_->log), cuda_(graphs_->cuda) {
    cuda_.require(cuda_.set_device(cuda_.device()), "choosing the GPU");
    cuda_.require(cuda_.stream_create(&stream_), "creating a stream");
    try {
      for (const auto& [stage, graph] : graphs_->graphs) prepare(stage, graph);
    } catch (...) {
      cuda_.stream_destroy(stream_);
      throw;
    }
  }

  ~TensorrtEngine() override {
    cuda_.stream_synchronize(stream_);
    cuda_.stream_destroy(stream_);
  }

  const EngineDescription& describe() const override { return graphs_->description; }

  Tensors run(Stage stage, const Tensors& inputs) override {
    const auto found = loaded_.find(stage);
    if (found == loaded_.end()) backend_error(cat("the ", name_of(stage), " was not loaded"));
    Loaded& loaded = found->second;
    cuda_.require(cuda_.set_device(cuda_.device()),
                  "choosing the GPU");  // each thread has a current GPU of its own
    for (const auto& [name, tensor] : inputs) bind(loaded, stage, name, tensor);
    Tensors outputs;
    for (const std::string& name : graphs_->graphs.at(stage).outputs) {
      const auto buffer = loaded.output_buffers.at(name).unused();
      set_address(loaded, stage, name, buffer->data());
      outputs[name] = {{}, nullptr, buffer, buffer->data()};
    }
    if (!loaded.context->enqueueV3(stream_)) {
      const std::string reason = log_.take("no reason given");
      engine_failed(reason, cat(graphs_->description.engine, " failed in the ", name_of(stage),
                                ": ", reason));
    }
    for (auto& [name, tensor] : outputs) {
      tensor.shape = shape_of(loaded.context->getTensorShape(name.c_str()));
    }
    return outputs;
  }

  void finish() override {
    cuda_.require(cuda_.set_device(cuda_.device()), "choosing the GPU");
    cuda_.require(cuda_.stream_synchronize(stream_), "running the graphs");
  }

  std::optional<int> cuda_device() const override { return cuda_.device(); }

  Tensor to_host(const Tensor& tensor) override {
    if (tensor.device == nullptr) return tensor;
    std::vector<float> values(elements(tensor.shape));
    cuda_.require(cuda_.memcpy_async(values.data(), tensor.device, values.size() * sizeof(float),
                                     cudaMemcpyDeviceToHost, stream_),
                  "copying from the GPU");
    finish();
    return host_tensor(tensor.shape, std::move(values));
  }

  std::unique_ptr<Engine> share() override { return std::make_unique<TensorrtEngine>(graphs_); }

 private:
  // Returns the largest shape of an input: on a dynamic axis the maximum of the profile.
  static nvinfer1::Dims largest_of(const nvinfer1::ICudaEngine& engine, const char* name) {
    const nvinfer1::Dims fixed = engine.getTensorShape(name);
    const bool free = std::any_of(fixed.d, fixed.d + std::max<std::int32_t>(fixed.nbDims, 0),
                                  [](std::int64_t axis) { return axis < 0; });
    return free ? engine.getProfileShape(name, 0, nvinfer1::OptProfileSelector::kMAX) : fixed;
  }

  // Creates the context of a stage. Allocates inputs at the largest shape of the profile, and outputs
  // at the shape that results.
  void prepare(Stage stage, const Graph& graph) {
    Loaded loaded;
    loaded.context.reset(graph.engine->createExecutionContext());
    if (!loaded.context) throw std::bad_alloc();  // creating a context fails only for memory
    const auto bytes_of = [](const nvinfer1::Dims& dims) {
      return elements(shape_of(dims)) * sizeof(float);
    };
    for (const std::string& input : graph.inputs) {
      const char* name = input.c_str();
      const nvinfer1::Dims largest = largest_of(*graph.engine, name);
      if (!loaded.context->setInputShape(name, largest)) {
        backend_error(cat(graph.path, ": ", name,
                          " does not accept its own profile: ", log_.take("no reason given")));
      }
      loaded.input_buffers.try_emplace(input, cuda_, bytes_of(largest));
    }
    for (const std::string& output : graph.outputs) {
      const nvinfer1::Dims largest = loaded.context->getTensorShape(output.c_str());
      loaded.output_buffers.try_emplace(output, cuda_, bytes_of(largest));
    }
    loaded_.emplace(stage, std::move(loaded));
  }

  // Binds an input. A tensor on the GPU is read in place; a tensor on the host is copied to the
  // stage's buffer.
  void bind(Loaded& loaded, Stage stage, const std::string& name, const Tensor& tensor) {
    if (!loaded.context->setInputShape(name.c_str(), dims_of(tensor.shape))) {
      backend_error(cat("the ", name_of(stage), " does not accept this shape of ", name, ": ",
                        log_.take("it lies outside the engine's profile"),
                        "; give fewer prompts or points at a time"));
    }
    void* place = nullptr;
    if (tensor.device != nullptr) {
      place = tensor.device;
    } else {
      place = loaded.input_buffers.at(name).data();
      cuda_.require(cuda_.memcpy_async(place, tensor.host, elements(tensor.shape) * sizeof(float),
                                       cudaMemcpyHostToDevice, stream_),
                    "copying to the GPU");
    }
    set_address(loaded, stage, name, place);
  }

  void set_address(Loaded& loaded, Stage stage, const std::string& name, void* place) {
    if (!loaded.context->setTensorAddress(name.c_str(), place)) {
      backend_error(cat("the ", name_of(stage), " does not accept ", name, ": ",
                        log_.take("no reason given")));
    }
  }

  const std::shared_ptr<TensorrtGraphs> graphs_;
  TensorrtLog& log_;
  const Cuda& cuda_;
  cudaStream_t stream_ = nullptr;
  std::map<Stage, Loaded> loaded_;
};

}  // namespace

std::unique_ptr<Engine> load_tensorrt(const Bundle& bundle, const EngineOptions& options,
                                      const std::vector<Stage>& stages) {
  return std::make_unique<TensorrtEngine>(
      std::make_shared<TensorrtGraphs>(bundle, options, stages));
}

}  // namespace glesam
