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
#include "gpu_program.h"
#include "input_limits.h"
#include "manifest.h"
#include "resample.h"
#include "tensor.h"

namespace glesam {

// Prepares the frames of a session. Its memory on the GPU is used again for the next frames.
class GpuFrames {
 public:
  explicit GpuFrames(std::shared_ptr<const GpuProgram> program);
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
  // Waits for the work, whatever becomes of it.
  void abandon() noexcept;

 private:
  // Memory that grows as needed.
  class Scratch {
   public:
    template <typename Value>
    Value* at_least(GpuFrames& frames, std::size_t count);

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

  const GpuDriver& driver() const { return *program_->driver(); }
  void wait();
  void wait_for(const Frame& frame);
  void upload(GpuAddress to, const void* from, std::size_t bytes);
  std::optional<std::size_t> allocated_from(GpuAddress address, std::size_t wanted) const;
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

  const std::shared_ptr<const GpuProgram> program_;
  GpuStream stream_ = nullptr;
  std::map<std::tuple<std::int64_t, std::int64_t, Filter>, DeviceAxis> axes_;
  std::map<std::pair<YuvMatrix, YuvRange>, std::unique_ptr<GpuMemory>> terms_;
  Scratch rgb_, first_half_, first_, half_, whole_, exact_;
  std::shared_ptr<GpuMemory> tensor_;
  Shape shape_;
};

}  // namespace glesam
