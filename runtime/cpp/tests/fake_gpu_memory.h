// Copies to and from the memory of the fake GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "fake_nvidia.h"
#include "tensor.h"

namespace glesam_tests {

// Bytes in the memory of the fake GPU.
class GpuCopy {
 public:
  explicit GpuCopy(const std::vector<std::uint8_t>& bytes) {
    cudaMalloc(&memory_, bytes.size());
    write(bytes);
  }
  ~GpuCopy() { cudaFree(memory_); }
  GpuCopy(const GpuCopy&) = delete;
  GpuCopy& operator=(const GpuCopy&) = delete;

  const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(memory_); }
  void write(const std::vector<std::uint8_t>& bytes) {
    const FakeGpuAtWork working;
    std::memcpy(memory_, bytes.data(), bytes.size());
  }

 private:
  void* memory_ = nullptr;
};

inline std::vector<float> to_host(const glesam::Tensor& tensor) {
  const FakeGpuAtWork working;
  return {tensor.device, tensor.device + glesam::elements(tensor.shape)};
}

}  // namespace glesam_tests
