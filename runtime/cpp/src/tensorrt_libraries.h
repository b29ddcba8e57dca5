// TensorRT's and CUDA's libraries. They are loaded at run time, so that a program with this backend
// also starts on machines without them.
#pragma once

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "dynamic_library.h"

namespace glesam {

// The functions of the CUDA runtime that this library uses.
class Cuda {
 public:
  // Throws Error (backend) if there is no library, no driver or no such device.
  Cuda(const std::string& device, int index);

  int device() const { return device_; }
  const std::string& compute_capability() const { return capability_; }  // "8.9"

  // Throws Error (backend) with CUDA's message if `code` is an error.
  void require(cudaError_t code, const char* what) const;

 private:
  DynamicLibrary library_;
  int device_;
  std::string capability_;

 public:
  decltype(cudaGetErrorString)* const get_error_string;
  decltype(cudaGetDeviceCount)* const get_device_count;
  decltype(cudaSetDevice)* const set_device;
  decltype(cudaDeviceGetAttribute)* const device_get_attribute;
  cudaError_t (*const malloc)(void**, std::size_t);
  cudaError_t (*const free)(void*);
  cudaError_t (*const memcpy_async)(void*, const void*, std::size_t, cudaMemcpyKind, cudaStream_t);
  cudaError_t (*const stream_create)(cudaStream_t*);
  cudaError_t (*const stream_destroy)(cudaStream_t);
  cudaError_t (*const stream_synchronize)(cudaStream_t);
};

// Keeps TensorRT's last error message, which its functions do not return.
class TensorrtLog final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override;
  // Returns the message, or `otherwise` if there is none, and clears it.
  std::string take(const char* otherwise);

 private:
  std::mutex mutex_;
  std::string last_;
};

// The library of TensorRT or TensorRT-RTX, whichever `target` names.
class TensorrtLibrary {
 public:
  // `library` is its path; empty means its usual name. Throws Error (backend).
  TensorrtLibrary(const std::string& target, const std::string& library);

  const std::string& version() const { return version_; }
  std::unique_ptr<nvinfer1::IRuntime> create_runtime(TensorrtLog& log) const;

 private:
  DynamicLibrary library_;
  std::string version_;
};

}  // namespace glesam
