// Computes the encoder's input from frames in CUDA memory, on that GPU and with the bits of
// preprocess().
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>

#include "frame.h"
#include "geometry.h"
#include "gpu_driver.h"
#include "gpu_kernels.h"
#include "input_limits.h"
#include "manifest.h"
#include "resample.h"
#include "tensor.h"

namespace glesam {

// The compiled kernels on one device. Several sessions may use them at the same time.
class GpuKernels {
 public:
  // Throws Error (backend) if the driver or the compiler is missing or fails.
  explicit GpuKernels(int device);
  ~GpuKernels();
  GpuKernels(const GpuKernels&) = delete;
  GpuKernels& operator=(const GpuKernels&) = delete;

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
  inline const char* GpuKernels::name_of<glesam_gpu::Arguments>() { \
    return #name;                                                   \
  }
GLESAM_KERNELS(GLESAM_NAME_OF)
#undef GLESAM_NAME_OF

// Prepares the frames of a session. Its memory on the GPU is used again for the next frames.
class GpuFrames {
 public:
  explicit GpuFrames(std::shared_ptr<const GpuKernels> kernels);
  ~GpuFrames();
  GpuFrames(const GpuFrames&) = delete;
  GpuFrames& operator=(const GpuFrames&) = delete;

  // Starts a tensor [rows, 3, S, S] for the encoder. The one before must not be in use any more.
  void begin(std::size_t rows, const Preprocessing& rules);
  // Queues the work that fills row `row` from a frame, and returns how the frame lies in it. Throws
  // the errors of check_frame, Error (invalid_input) if a plane is not in memory that the GPU can read,
  // and Error (backend).
  Geometry add(std::size_t row, const Frame& frame, const Preprocessing& rules,
               const Limits& limits);
  // Waits for the work and returns the tensor. Throws Error (backend) if it failed.
  Tensor finish();

 private:
  // Memory that grows as needed.
  class Scratch {
   public:
    GpuAddress at_least(GpuFrames& frames, std::size_t bytes);

   private:
    std::shared_ptr<GpuMemory> memory_;
  };
  enum class Filter { bilinear, bicubic, exact };
  // Taps on the GPU.
  struct DeviceAxis {
    std::unique_ptr<GpuMemory> memory;  // weights, first, count
    std::size_t weights, outputs;
    int span;
  };

  const GpuDriver& driver() const { return *kernels_->driver(); }
  void wait();
  void wait_for(const Frame& frame);
  glesam_gpu::Rows readable(const PlaneBytes& bytes, const PlaneRows& rows,
                            std::size_t plane) const;
  glesam_gpu::Rows to_rgb(const Frame& frame, const CheckedFrame& checked);
  const glesam_gpu::Whole* terms_of(YuvMatrix matrix, YuvRange range);
  glesam_gpu::Rows resize_bytes(glesam_gpu::Rows from, Size size, Size wanted, Filter filter,
                                Scratch& half, Scratch& whole);
  template <typename Weight>
  DeviceAxis uploaded(const Taps<Weight>& taps);
  template <typename Weight>
  glesam_gpu::Axis<Weight> axis_of(std::int64_t size_in, std::int64_t size_out, Filter filter);

  const std::shared_ptr<const GpuKernels> kernels_;
  GpuStream stream_ = nullptr;
  std::map<std::tuple<std::int64_t, std::int64_t, Filter>, DeviceAxis> axes_;
  std::map<std::pair<YuvMatrix, YuvRange>, GpuMemory> terms_;
  Scratch rgb_, first_half_, first_, half_, whole_, exact_;
  std::shared_ptr<GpuMemory> tensor_;
  Shape shape_;
};

}  // namespace glesam
