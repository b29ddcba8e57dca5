// The compiled kernels of gpu_kernels.h. CUDA's run-time compiler (NVRTC) is loaded when it is needed.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "gpu_driver.h"
#include "gpu_kernels.h"

namespace glesam {

// Compiles CUDA C++ for GPUs of a compute capability (89 for 8.9): to machine code if the compiler knows
// the capability, else to PTX, which the driver compiles further. `cuda` is the driver's major version:
// a newer compiler's results cannot be loaded. Throws Error (backend) if there is no NVRTC, or with the
// compiler's message.
std::string compile_for_gpu(const char* text, const char* name, int compute_capability, int cuda);

// The compiled kernels on one device. Several sessions may use them at the same time.
class GpuProgram {
 public:
  // Throws Error (backend) if the driver or the compiler is missing or fails.
  explicit GpuProgram(int device);
  ~GpuProgram();
  GpuProgram(const GpuProgram&) = delete;
  GpuProgram& operator=(const GpuProgram&) = delete;

  const std::shared_ptr<const GpuDriver>& driver() const { return driver_; }

  // Queues a kernel. `Arguments` is one of the structs in GLESAM_KERNELS.
  template <typename Arguments>
  void launch(const Arguments& arguments, GpuStream stream) const {
    launch(name_of<Arguments>(), &arguments, arguments.width, arguments.height, stream);
  }

 private:
  template <typename Arguments>
  static const char* name_of();
  void launch(const char* name, const void* arguments, int width, int height,
              GpuStream stream) const;

  const std::shared_ptr<const GpuDriver> driver_;
  GpuModule module_ = nullptr;
  std::map<std::string, GpuFunction> functions_;
};

#define GLESAM_NAME_OF(name, Arguments)                             \
  template <>                                                       \
  inline const char* GpuProgram::name_of<glesam_gpu::Arguments>() { \
    return #name;                                                   \
  }
GLESAM_KERNELS(GLESAM_NAME_OF)
#undef GLESAM_NAME_OF

}  // namespace glesam
