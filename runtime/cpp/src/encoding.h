// From frames to the features that the decoder needs: preprocessing, encoder, gate and enhancer.
#pragma once

#include <memory>
#include <vector>

#include "context.h"
#include "engine.h"
#include "geometry.h"
#include "glesam.h"
#include "gpu_frames.h"
#include "masks.h"
#include "stop.h"

namespace glesam {

// What a session knows about an encoded image.
struct ImageState {
  std::shared_ptr<const SharedContext> context;
  std::shared_ptr<Engine> engine;  // outlives its tensors
  Geometry geometry;
  Decision decision;
  Tensors features;  // each [1, ...]
  Upscaler upscaler;
};

// Encodes the frames of a session.
class FrameEncoder {
 public:
  // `timings` and `stop` are the session's; `encode` changes the one and obeys the other.
  FrameEncoder(std::shared_ptr<const SharedContext> context, std::shared_ptr<Engine> engine,
               Timings& timings, Stop& stop);

  // Returns the images of frames, in batches as large as the bundle's graphs take. Throws the errors of
  // check_frame, of the engine and of Stop. With several frames, their messages say which one.
  using Images = std::vector<std::shared_ptr<const ImageState>>;
  Images encode(const Frame* frames, std::size_t count);

  std::shared_ptr<const ImageState> encode(const Frame& frame) { return encode(&frame, 1).front(); }

 private:
  // The encoder's input, and how each frame lies in it.
  struct Input {
    Tensor image;  // [rows, 3, S, S], with a row or more for each frame
    std::vector<Geometry> geometries;
  };
  using Decisions = std::vector<Decision>;

  Input prepared(const Frame* frames, std::size_t count);
  Input prepared_on_gpu(const Frame* frames, std::size_t count);
  Decisions decided(const Tensors& features, const std::vector<Geometry>& geometries);
  std::vector<Tensors> enhanced(const Tensors& features, const Decisions& decisions);
  void encode_batch(const Frame* frames, std::size_t count, Images& images);

  const Manifest& manifest() const { return context_->manifest(); }
  const Limits& limits() const { return context_->params.limits; }

  const std::shared_ptr<const SharedContext> context_;
  const std::shared_ptr<Engine> engine_;
  Timings& timings_;
  Stop& stop_;
  std::unique_ptr<GpuFrames> gpu_;  // since the first frame in CUDA memory
  bool numbered_ = false;           // whether messages say which frame they are about
  std::size_t first_ = 0;           // of the batch, in the call
};

}  // namespace glesam
