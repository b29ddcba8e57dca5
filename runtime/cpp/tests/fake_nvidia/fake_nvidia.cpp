// The functions of the CUDA runtime and of TensorRT that the library loads, on the fake GPU.
//
// An engine file is text with a line per tensor: "input|output NAME AXIS...", where an axis is a
// size, B (up to 4), P (up to 16) or N and a size. The graph sums its inputs with different factors and fills its
// outputs with values that depend on the sum. Row b of an output with axis B or N depends on row b of
// the inputs with that axis, and on all of the other inputs.
#include "fake_nvidia.h"

#include "fake_memory.h"

#include <NvInferRuntime.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::int64_t kMostB = 4, kMostP = 16;

struct FakeTensor {
  bool input = false;
  std::vector<std::string> axes;

  bool has_rows() const { return axes.front() == "B" || axes.front()[0] == 'N'; }
};
using FakeTensors = std::map<std::string, FakeTensor>;

std::int64_t size_of(const std::string& axis) {
  return std::stoll(axis[0] == 'N' ? axis.substr(1) : axis);
}

nvinfer1::Dims dims_of(const FakeTensor& tensor, std::int64_t b, std::int64_t p) {
  nvinfer1::Dims dims{};
  for (const std::string& axis : tensor.axes) {
    dims.d[dims.nbDims++] = axis == "B" ? b : axis == "P" ? p : size_of(axis);
  }
  return dims;
}

std::size_t count_of(const nvinfer1::Dims& dims) {
  std::size_t count = 1;
  for (std::int32_t i = 0; i < dims.nbDims; ++i) count *= static_cast<std::size_t>(dims.d[i]);
  return count;
}

struct Bound {
  bool batched = false;
  std::size_t count = 0;
  float* data = nullptr;
};

cudaError_t run(const std::map<std::string, Bound>& inputs,
                const std::map<std::string, Bound>& outputs, std::size_t batch) {
  FakeGpu& gpu = fake_gpu();
  std::this_thread::sleep_for(std::chrono::duration<double>(gpu.seconds_per_run));
  ++gpu.runs;
  for (const auto* bound : {&inputs, &outputs}) {
    for (const auto& [name, tensor] : *bound) {
      if (!fake_is_allocated(tensor.data, tensor.count * sizeof(float)))
        return cudaErrorLaunchFailure;
    }
  }
  const bool fails = gpu.until_run_fails == 0;
  if (gpu.until_run_fails != FakeGpu::kNever) gpu.until_run_fails -= fails ? 0 : 1;
  for (std::size_t b = 0; b < batch; ++b) {
    double sum = 0;
    for (const auto& [name, tensor] : inputs) {
      const std::size_t step = tensor.batched ? tensor.count / batch : tensor.count;
      const float* from = tensor.data + (tensor.batched ? b * step : 0);
      for (std::size_t i = 0; i < step; ++i) {
        sum += static_cast<double>(from[i]) * static_cast<double>(i % 97 + 1);
      }
    }
    for (const auto& [name, tensor] : outputs) {
      const std::size_t step = tensor.count / batch;
      for (std::size_t i = 0; i < step; ++i) {
        const double value = 8 * std::sin(sum + 0.01 * static_cast<double>(i));
        tensor.data[b * step + i] = fails ? NAN : static_cast<float>(value);
      }
    }
  }
  return fails ? cudaErrorLaunchFailure : cudaSuccess;
}

class FakeContext final : public nvinfer1::IExecutionContext {
 public:
  FakeContext(const FakeTensors& tensors, nvinfer1::ILogger& log) : tensors_(tensors), log_(log) {}
  bool setInputShape(const char* name, const nvinfer1::Dims& dims) override {
    const FakeTensor& tensor = tensors_.at(name);
    for (std::size_t i = 0; i < tensor.axes.size(); ++i) {
      const std::int64_t size = dims.d[i];
      if (tensor.axes[i] == "B" && size <= kMostB)
        b_ = size;
      else if (tensor.axes[i] == "P" && size <= kMostP)
        p_ = size;
      else if (tensor.axes[i] == "B" || tensor.axes[i] == "P" || size_of(tensor.axes[i]) != size)
        return false;
    }
    return true;
  }
  nvinfer1::Dims getTensorShape(const char* name) const override {
    return dims_of(tensors_.at(name), b_, p_);
  }
  bool setTensorAddress(const char* name, void* address) override {
    addresses_[name] = address;
    return true;
  }
  bool enqueueV3(cudaStream_t stream) override {
    FakeGpu& gpu = fake_gpu();
    if (gpu.until_enqueue_fails == 0) {
      log_.log(nvinfer1::ILogger::Severity::kERROR, "the fake refuses to run this graph");
      return false;
    }
    if (gpu.until_enqueue_fails != FakeGpu::kNever) --gpu.until_enqueue_fails;
    std::map<std::string, Bound> inputs, outputs;
    for (const auto& [name, tensor] : tensors_) {
      const Bound bound{tensor.has_rows(), count_of(getTensorShape(name.c_str())),
                        static_cast<float*>(addresses_.at(name))};
      (tensor.input ? inputs : outputs)[name] = bound;
    }
    std::size_t batch = 1;
    for (const auto& [name, tensor] : tensors_) {
      if (!tensor.input && tensor.has_rows()) {
        batch = static_cast<std::size_t>(getTensorShape(name.c_str()).d[0]);
      }
    }
    stream->add([inputs, outputs, batch] { return run(inputs, outputs, batch); });
    return true;
  }

 private:
  const FakeTensors& tensors_;
  nvinfer1::ILogger& log_;
  std::int64_t b_ = 1, p_ = 1;
  std::map<std::string, void*> addresses_;
};

class FakeEngine final : public nvinfer1::ICudaEngine {
 public:
  FakeEngine(const std::string& plan, nvinfer1::ILogger& log) : log_(log) {
    std::istringstream lines(plan);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string kind, name, axis;
      words >> kind >> name;
      FakeTensor& tensor = tensors_[name];
      tensor.input = kind == "input";
      while (words >> axis) tensor.axes.push_back(axis);
      names_.push_back(name);
    }
  }
  nvinfer1::IExecutionContext* createExecutionContext() override {
    return new FakeContext(tensors_, log_);
  }
  std::int32_t getNbIOTensors() const override { return static_cast<std::int32_t>(names_.size()); }
  const char* getIOTensorName(std::int32_t index) const override {
    return names_[static_cast<std::size_t>(index)].c_str();
  }
  nvinfer1::TensorIOMode getTensorIOMode(const char* name) const override {
    return tensors_.at(name).input ? nvinfer1::TensorIOMode::kINPUT
                                   : nvinfer1::TensorIOMode::kOUTPUT;
  }
  nvinfer1::DataType getTensorDataType(const char*) const override {
    return nvinfer1::DataType::kFLOAT;
  }
  nvinfer1::Dims getTensorShape(const char* name) const override {
    return dims_of(tensors_.at(name), -1, -1);
  }
  nvinfer1::Dims getProfileShape(const char* name, std::int32_t,
                                 nvinfer1::OptProfileSelector) const override {
    return dims_of(tensors_.at(name), kMostB, kMostP);
  }

 private:
  nvinfer1::ILogger& log_;
  FakeTensors tensors_;
  std::vector<std::string> names_;
};

class FakeRuntime final : public nvinfer1::IRuntime {
 public:
  explicit FakeRuntime(nvinfer1::ILogger& log) : log_(log) {}
  nvinfer1::ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t bytes) override {
    ++fake_gpu().engines;
    return new FakeEngine({static_cast<const char*>(plan), bytes}, log_);
  }

 private:
  nvinfer1::ILogger& log_;
};

}  // namespace

extern "C" {

const char* cudaGetErrorString(cudaError_t) { return "the fake GPU failed"; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 9;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  *memory = fake_allocate(bytes);
  return *memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

// Waits for the work that was queued before, as CUDA does.
cudaError_t cudaFree(void* memory) { return fake_free(memory); }

// Like CUDA, it reads pageable memory of the host before it returns.
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (kind == cudaMemcpyDeviceToHost) {
    stream->add([=]() -> cudaError_t {
      if (!fake_is_allocated(from, bytes)) return cudaErrorLaunchFailure;
      std::memcpy(to, from, bytes);
      return cudaSuccess;
    });
  } else {
    fake_copy_from_host(stream, to, from, bytes);
  }
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return *stream = new FakeStream, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return stream->finish(); }

std::int32_t getInferLibMajorVersion() { return NV_TENSORRT_MAJOR; }
std::int32_t getInferLibMinorVersion() { return NV_TENSORRT_MINOR; }
void* createInferRuntime_INTERNAL(void* log, std::int32_t) {
  return static_cast<nvinfer1::IRuntime*>(new FakeRuntime(*static_cast<nvinfer1::ILogger*>(log)));
}

}  // extern "C"
