// The ONNX Runtime backend, on its C API. The library is loaded at run time and asked for an early
// version of the API, so that one binary works with every later ONNX Runtime.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>

#include "cpu.h"
#include "dynamic_library.h"
#include "engine.h"
#include "errors.h"
#include "text.h"

namespace glesam {
namespace {

constexpr std::uint32_t kApiVersion = 14;  // ONNX Runtime 1.14
static_assert(ORT_API_VERSION >= kApiVersion, "onnxruntime_c_api.h of 1.14 or later is needed");

// ONNX Runtime 1.32 reports its use to its vendor from the moment it is loaded, unless this is set.
// A value of the user's stays.
void disable_reports() {
  constexpr const char* kSwitch = "ORT_DISABLE_TELEMETRY";
#ifdef _WIN32
  if (std::getenv(kSwitch) == nullptr) _putenv_s(kSwitch, "1");
#else
  setenv(kSwitch, "1", /*overwrite=*/0);
#endif
}

#if defined(_WIN32)
constexpr std::array<const char*, 1> kLibraries{"onnxruntime.dll"};
#elif defined(__APPLE__)
constexpr std::array<const char*, 1> kLibraries{"libonnxruntime.dylib"};
#else
constexpr std::array<const char*, 2> kLibraries{"libonnxruntime.so", "libonnxruntime.so.1"};
#endif

DynamicLibrary load_library(const std::string& name) {
  disable_reports();
  return DynamicLibrary("onnxruntime",
                        name.empty()
                            ? std::vector<std::string>(kLibraries.begin(), kLibraries.end())
                            : std::vector<std::string>{name},
                        "install ONNX Runtime, or name its library: engine_library");
}

struct OrtFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Owns an object of ONNX Runtime.
template <typename Object>
using Owned = std::unique_ptr<Object, void (*)(Object*)>;

class Api {
 public:
  explicit Api(const std::string& library) : library_(load_library(library)) {
    const auto* base = library_.function<const OrtApiBase*()>("OrtGetApiBase")();
    version_ = base->GetVersionString();
    api_ = base->GetApi(kApiVersion);
    if (api_ == nullptr) {
      backend_error(cat(library_.name(), ": onnxruntime ", version_, " is too old; 1.", kApiVersion,
                        " or later is needed"));
    }
  }

  const OrtApi* operator->() const { return api_; }
  const std::string& version() const { return version_; }

  // Throws OrtFailure with ONNX Runtime's message if `status` is an error.
  void require(OrtStatus* status) const {
    if (status == nullptr) return;
    const std::string message = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    throw OrtFailure(one_line(message.substr(0, message.find('\n'))));
  }

 private:
  DynamicLibrary library_;
  std::string version_;
  const OrtApi* api_ = nullptr;
};

// The loaded graphs of a bundle. ONNX Runtime's sessions may run in several threads at the same time.
class OnnxruntimeGraphs {
 public:
  OnnxruntimeGraphs(const Bundle& bundle, const EngineOptions& options,
                    const std::vector<Stage>& stages)
      : api_(options.library) {
    const bool cpu = options.device.empty() || options.device == "cpu";
    const int device = cpu ? 0 : cuda_device_of(options.device, "cpu, cuda, cuda:N");
    if (!options.precision.empty()) {
      backend_error(
          "precision: onnxruntime computes in the precision of the graphs; export the bundle with "
          "--fp16 or --bf16 instead");
    }
    description_ = {"onnxruntime", api_.version(),
                    cpu ? "CPUExecutionProvider" : "CUDAExecutionProvider",
                    cpu ? "cpu" : cat("cuda:", device)};
    OrtEnv* env = nullptr;
    api_.require(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "glesam", &env));
    env_.reset(env);
    OrtMemoryInfo* memory = nullptr;
    api_.require(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    memory_.reset(memory);
    if (!cpu) {
      cuda_device_ = device;
      OrtMemoryInfo* on_gpu = nullptr;
      api_.require(
          api_->CreateMemoryInfo("Cuda", OrtDeviceAllocator, device, OrtMemTypeDefault, &on_gpu));
      gpu_memory_.reset(on_gpu);
    }
    const auto session_options = make_options(cpu, device, options.threads);
    for (const Stage stage : stages) load(bundle, stage, session_options.get());
  }

  const EngineDescription& describe() const { return description_; }
  std::optional<int> cuda_device() const { return cuda_device_; }

  Tensors run(Stage stage, const Tensors& inputs, Stop* stop) const {
    const auto found = loaded_.find(stage);
    if (found == loaded_.end()) backend_error(cat("the ", name_of(stage), " was not loaded"));
    try {
      return run(found->second, inputs, stop);
    } catch (const OrtFailure& error) {
      if (stop != nullptr) stop->check();
      engine_failed(error.what(),
                    cat("onnxruntime failed in the ", name_of(stage), ": ", error.what()));
    }
  }

 private:
  struct Loaded {
    Owned<OrtSession> session;
    std::vector<std::string> outputs;
  };

  Owned<OrtSessionOptions> make_options(bool cpu, int device, int threads) const {
    OrtSessionOptions* made = nullptr;
    api_.require(api_->CreateSessionOptions(&made));
    Owned<OrtSessionOptions> options(made, api_->ReleaseSessionOptions);
    if (threads > 0) api_.require(api_->SetIntraOpNumThreads(made, threads));
    // By default it also quantizes the inputs of layers that have only quantized weights.
    configure(made, "session.qdq_matmulnbits_accuracy_level", "1");
    // Otherwise sums saturate, and layers have more error than quantization causes (docs/adr/0013).
    if (!adds_bytes_exactly()) configure(made, "session.disable_quant_qdq", "1");
    if (cpu) return options;
    OrtCUDAProviderOptionsV2* cuda = nullptr;
    try {
      api_.require(api_->CreateCUDAProviderOptions(&cuda));
      const Owned<OrtCUDAProviderOptionsV2> owned(cuda, api_->ReleaseCUDAProviderOptions);
      const char* key = "device_id";
      const std::string number = std::to_string(device);
      const char* value = number.c_str();
      api_.require(api_->UpdateCUDAProviderOptions(cuda, &key, &value, 1));
      api_.require(api_->SessionOptionsAppendExecutionProvider_CUDA_V2(made, cuda));
    } catch (const OrtFailure& error) {
      backend_error(
          cat("device cuda needs CUDAExecutionProvider, which this onnxruntime cannot "
              "load: ",
              error.what()));
    }
    return options;
  }

  void configure(OrtSessionOptions* options, const char* entry, const char* value) const {
    api_.require(api_->AddSessionConfigEntry(options, entry, value));
  }

  void load(const Bundle& bundle, Stage stage, const OrtSessionOptions* options) {
    const std::string path = utf8_of(bundle.graph_path(stage));
    const StageRecord& record = bundle.manifest.stages.at(stage);
    OrtSession* made = nullptr;
    try {
      api_.require(
          api_->CreateSession(env_.get(), bundle.graph_path(stage).c_str(), options, &made));
    } catch (const OrtFailure& error) {
      engine_failed(error.what(),
                    cat(path, ": onnxruntime cannot load it: ", error.what(),
                        record.precision == "fp32" ? "" : "; use an fp32 bundle here"));
    }
    Loaded loaded{{made, api_->ReleaseSession}, {}};
    check_interface(path, "inputs", found(made, true), record.inputs);
    check_interface(path, "outputs", found(made, false), record.outputs);
    for (const TensorSpec& spec : record.outputs) loaded.outputs.push_back(spec.name);
    loaded_.emplace(stage, std::move(loaded));
  }

  std::vector<FoundTensor> found(const OrtSession* session, bool inputs) const {
    std::size_t count = 0;
    api_.require(inputs ? api_->SessionGetInputCount(session, &count)
                        : api_->SessionGetOutputCount(session, &count));
    OrtAllocator* allocator = nullptr;
    api_.require(api_->GetAllocatorWithDefaultOptions(&allocator));
    std::vector<FoundTensor> tensors;
    for (std::size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      api_.require(inputs ? api_->SessionGetInputName(session, i, allocator, &name)
                          : api_->SessionGetOutputName(session, i, allocator, &name));
      FoundTensor tensor{name, "not a tensor", {}};
      api_.require(api_->AllocatorFree(allocator, name));
      OrtTypeInfo* type = nullptr;
      api_.require(inputs ? api_->SessionGetInputTypeInfo(session, i, &type)
                          : api_->SessionGetOutputTypeInfo(session, i, &type));
      const Owned<OrtTypeInfo> owned(type, api_->ReleaseTypeInfo);
      const OrtTensorTypeAndShapeInfo* info = nullptr;
      api_.require(api_->CastTypeInfoToTensorInfo(type, &info));
      if (info != nullptr) {
        ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        api_.require(api_->GetTensorElementType(info, &element));
        tensor.type = element == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                          ? "float32"
                          : cat("of type ", static_cast<int>(element));
        tensor.shape = shape_of(info);
      }
      tensors.push_back(std::move(tensor));
    }
    return tensors;
  }

  Shape shape_of(const OrtTensorTypeAndShapeInfo* info) const {
    std::size_t rank = 0;
    api_.require(api_->GetDimensionsCount(info, &rank));
    Shape shape(rank);
    api_.require(api_->GetDimensions(info, shape.data(), rank));
    return shape;
  }

  Tensors run(const Loaded& loaded, const Tensors& inputs, Stop* stop) const {
    std::vector<const char*> input_names, output_names;
    std::vector<Owned<OrtValue>> owned;
    std::vector<const OrtValue*> values;
    for (const auto& [name, tensor] : inputs) {
      OrtValue* value = nullptr;
      const bool on_host = tensor.device == nullptr;
      // ONNX Runtime only reads inputs, but its API takes them without const.
      float* data = on_host ? const_cast<float*>(tensor.host) : tensor.device;
      api_.require(api_->CreateTensorWithDataAsOrtValue(
          on_host ? memory_.get() : gpu_memory_.get(), data, elements(tensor.shape) * sizeof(float),
          tensor.shape.data(), tensor.shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
      owned.emplace_back(value, api_->ReleaseValue);
      values.push_back(value);
      input_names.push_back(name.c_str());
    }
    for (const std::string& name : loaded.outputs) output_names.push_back(name.c_str());
    std::vector<OrtValue*> made(output_names.size(), nullptr);
    OrtRunOptions* created = nullptr;
    api_.require(api_->CreateRunOptions(&created));
    const Owned<OrtRunOptions> options(created, api_->ReleaseRunOptions);
    std::optional<Stop::Watch> watch;
    if (stop != nullptr) {
      watch.emplace(
          *stop, [this, created] { api_->ReleaseStatus(api_->RunOptionsSetTerminate(created)); });
    }
    api_.require(api_->Run(loaded.session.get(), created, input_names.data(), values.data(),
                           values.size(), output_names.data(), output_names.size(), made.data()));
    Tensors outputs;
    for (std::size_t i = 0; i < made.size(); ++i) {
      std::shared_ptr<OrtValue> value(made[i], api_->ReleaseValue);
      OrtTensorTypeAndShapeInfo* info = nullptr;
      api_.require(api_->GetTensorTypeAndShape(value.get(), &info));
      const Owned<OrtTensorTypeAndShapeInfo> kept(info, api_->ReleaseTensorTypeAndShapeInfo);
      void* data = nullptr;
      api_.require(api_->GetTensorMutableData(value.get(), &data));
      outputs[loaded.outputs[i]] = {shape_of(info), static_cast<const float*>(data), value};
    }
    return outputs;
  }

  Api api_;
  Owned<OrtEnv> env_{nullptr, api_->ReleaseEnv};
  Owned<OrtMemoryInfo> memory_{nullptr, api_->ReleaseMemoryInfo};
  Owned<OrtMemoryInfo> gpu_memory_{nullptr, api_->ReleaseMemoryInfo};
  std::optional<int> cuda_device_;
  std::map<Stage, Loaded> loaded_;
  EngineDescription description_;
};

class OnnxruntimeEngine final : public Engine {
 public:
  explicit OnnxruntimeEngine(std::shared_ptr<const OnnxruntimeGraphs> graphs)
      : graphs_(std::move(graphs)) {}
  const EngineDescription& describe() const override { return graphs_->describe(); }
  Tensors run(Stage stage, const Tensors& inputs) override {
    return graphs_->run(stage, inputs, stop_);
  }
  std::optional<int> cuda_device() const override { return graphs_->cuda_device(); }
  // ONNX Runtime copies its own tensors to the device and back by itself.
  Tensor to_host(const Tensor& tensor) override { return tensor; }
  std::unique_ptr<Engine> share() override { return std::make_unique<OnnxruntimeEngine>(graphs_); }

 private:
  std::shared_ptr<const OnnxruntimeGraphs> graphs_;
};

}  // namespace

std::unique_ptr<Engine> load_onnxruntime(const Bundle& bundle, const EngineOptions& options,
                                         const std::vector<Stage>& stages) {
  try {
    return std::make_unique<OnnxruntimeEngine>(
        std::make_shared<const OnnxruntimeGraphs>(bundle, options, stages));
  } catch (const OrtFailure& error) {
    engine_failed(error.what(), cat("onnxruntime cannot run here: ", error.what()));
  }
}

}  // namespace glesam
