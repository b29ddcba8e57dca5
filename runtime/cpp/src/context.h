// What the sessions of a context share: the verified bundle and the loaded graphs.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>

#include "engine.h"
#include "enhancing.h"
#include "glesam.h"

namespace glesam {

class GpuProgram;

// Sets `seconds` to the time that it lives.
class Timer {
 public:
  explicit Timer(double& seconds) : seconds_(seconds), start_(Clock::now()) {}
  ~Timer() { seconds_ = std::chrono::duration<double>(Clock::now() - start_).count(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  double& seconds_;
  Clock::time_point start_;
};

// A bundle, and the engine that loaded its graphs.
struct Opened {
  Bundle bundle;
  std::shared_ptr<Engine> engine;
};

// Verifies a bundle and loads its graphs. Throws Error.
Opened open_and_load(const std::string& folder, const Params& params, bool enhance);

Info info_of(const Bundle& bundle, const Engine& engine);

// The sessions of a context use it from several threads, and keep it until the last of them ends.
class SharedContext {
 public:
  // `params` are those that the bundle was opened with, and `seconds` the time that it took. Throws
  // Error if the bundle's gate cannot be used as `params` says.
  SharedContext(Opened opened, Params params, double seconds);

  const Bundle bundle;
  const Params params;
  const GateChoice gate;  // none if the enhancer always or never runs
  const std::size_t prompt_batch;  // the maximum number of prompts per run of the decoder
  const Info info;
  const double load_seconds;

  const Manifest& manifest() const { return bundle.manifest; }

  // Calls the log of the parameters, if there is one.
  void log(LogLevel level, const std::string& message) const noexcept;

  // Returns the kernels that read frames in the memory of a CUDA device, which are compiled for the
  // first frame of the context. Throws Error (backend).
  std::shared_ptr<const GpuProgram> gpu_program(int device) const;

  // Returns an engine for one more session. Throws Error (backend) if there can be no more.
  std::shared_ptr<Engine> engine_for_session() const;

 private:
  const std::shared_ptr<Engine> first_;
  mutable std::mutex mutex_;
  mutable bool first_is_taken_ = false;
  mutable std::mutex compiling_;  // sessions are created meanwhile
  mutable std::shared_ptr<const GpuProgram> gpu_program_;
};

}  // namespace glesam
