// A stand-in for TensorRT's header, with the part that the library uses. The classes do not have
// TensorRT's binary interface: everything that includes this file is linked with fake_nvidia.cpp.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#define NV_TENSORRT_MAJOR 99
#define NV_TENSORRT_MINOR 0
#define NV_TENSORRT_VERSION 990000

namespace nvinfer1 {

enum class DataType { kFLOAT, kHALF };
enum class TensorIOMode { kNONE, kINPUT, kOUTPUT };
enum class OptProfileSelector { kMIN, kOPT, kMAX };

struct Dims {
  static constexpr std::int32_t MAX_DIMS = 8;
  std::int32_t nbDims;
  std::int64_t d[MAX_DIMS];
};

class ILogger {
 public:
  enum class Severity { kINTERNAL_ERROR, kERROR, kWARNING };
  virtual ~ILogger() = default;
  virtual void log(Severity severity, const char* message) noexcept = 0;
};

class IExecutionContext {
 public:
  virtual ~IExecutionContext() = default;
  virtual bool setInputShape(const char* name, const Dims& dims) = 0;
  virtual Dims getTensorShape(const char* name) const = 0;
  virtual bool setTensorAddress(const char* name, void* address) = 0;
  virtual bool enqueueV3(cudaStream_t stream) = 0;
};

class ICudaEngine {
 public:
  virtual ~ICudaEngine() = default;
  virtual IExecutionContext* createExecutionContext() = 0;
  virtual std::int32_t getNbIOTensors() const = 0;
  virtual const char* getIOTensorName(std::int32_t index) const = 0;
  virtual TensorIOMode getTensorIOMode(const char* name) const = 0;
  virtual DataType getTensorDataType(const char* name) const = 0;
  virtual Dims getTensorShape(const char* name) const = 0;
  virtual Dims getProfileShape(const char* name, std::int32_t profile,
                               OptProfileSelector which) const = 0;
};

class IRuntime {
 public:
  virtual ~IRuntime() = default;
  virtual ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t bytes) = 0;
};

}  // namespace nvinfer1
