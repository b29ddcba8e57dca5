// Opening a bundle, and the context that its sessions share.
#include "context.h"

#include <algorithm>
#include <thread>

#include "errors.h"
#include "gpu_frames.h"
#include "selftest.h"
#include "text.h"

namespace glesam {
namespace {

// Threads of an engine wait for each other by spinning: with 32 per core, nano takes 15 times as
// long as with one.
constexpr unsigned threads_per_core = 8;

constexpr int most_streams = 1024;

void check_threads(int threads) {
  if (threads < 0) input_error("threads: must be 0 or more");
  const unsigned cores = std::thread::hardware_concurrency();  // 0 if unknown
  if (cores > 0 && static_cast<unsigned>(threads) > threads_per_core * cores)
    input_error("threads " + std::to_string(threads) + ": more than " +
                std::to_string(threads_per_core) +
                " per core make the engine many times slower, and this process has " +
                std::to_string(cores));
}

// Returns the maximum number of prompts per run of the decoder.
std::size_t prompt_batch_of(const Manifest& manifest, const Engine& engine, std::size_t wanted) {
  constexpr std::size_t kOnCpu = 8, kElsewhere = 64;  // as in the Python runtime, which says why
  const std::string& device = engine.describe().device;
  if (wanted == 0) wanted = device == "cpu" || device == "CPU" ? kOnCpu : kElsewhere;
  const StageRecord& decoder = manifest.stages.at(Stage::decoder);
  for (const TensorSpec& spec : decoder.inputs) {
    if (spec.name != "point_coords") continue;
    const auto range = decoder.profile.find(spec.shape.at(0).symbol);
    if (range == decoder.profile.end()) continue;
    wanted =
        std::min(wanted, static_cast<std::size_t>(std::max<std::int64_t>(range->second.max, 1)));
  }
  return wanted;
}

}  // namespace

Opened open_and_load(const std::string& folder, const Params& params, bool enhance) {
  Bundle bundle = open_bundle(folder, params.limits);
  check_threads(params.threads);
  if (params.streams < 0 || params.streams > most_streams) {
    input_error(cat("streams ", params.streams, ": must be from 0 to ", most_streams));
  }
  std::vector<Stage> stages{Stage::encoder, Stage::decoder};
  if (enhance) stages.insert(stages.begin() + 1, Stage::enhancer);
  const EngineOptions options{params.device, params.precision, params.engine_library,
                              params.threads, std::max(params.streams, 1)};
  auto engine =
      load_engine(bundle, params.backend.empty() ? "auto" : params.backend, options, stages);
  return {std::move(bundle), std::move(engine)};
}

Info info_of(const Bundle& bundle, const Engine& loaded) {
  const Manifest& manifest = bundle.manifest;
  const EngineDescription& engine = loaded.describe();
  return {utf8_of(bundle.path),
          bundle.sha256,
          manifest.model.family,
          manifest.model.preset,
          manifest.model.trained,
          static_cast<std::size_t>(manifest.preprocessing.image_size),
          engine.engine,
          engine.version,
          engine.provider,
          engine.device};
}

SharedContext::SharedContext(Opened opened, Params given, double seconds)
    : bundle(std::move(opened.bundle)),
      params(std::move(given)),
      gate(params.enhance ? gate_of(bundle.manifest, bundle.path.string(), params.gate)
                          : GateChoice{}),
      prompt_batch(prompt_batch_of(bundle.manifest, *opened.engine, params.max_prompt_batch)),
      info(glesam::info_of(bundle, *opened.engine)),
      load_seconds(seconds),
      first_(std::move(opened.engine)) {}

std::shared_ptr<Engine> SharedContext::engine_for_session() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (first_is_taken_) return first_->share();
  first_is_taken_ = true;
  return first_;
}

std::shared_ptr<const GpuProgram> SharedContext::gpu_program(int device) const {
  const std::lock_guard<std::mutex> lock(compiling_);
  if (!gpu_program_) gpu_program_ = std::make_shared<const GpuProgram>(device);
  return gpu_program_;
}

void SharedContext::log(LogLevel level, const std::string& message) const noexcept {
  if (!params.log) return;
  try {
    params.log(level, message);
  } catch (...) {  // the caller's function failed, not the call
  }
}

Params default_params() {
  Params params;
  params.backend = "auto";
  return params;
}

std::vector<std::string> backends() { return compiled_backends(); }

const char* version() noexcept { return GLESAM_VERSION; }

Context::Context(std::shared_ptr<const SharedContext> shared) noexcept : shared_(std::move(shared)) {}
Context::~Context() = default;

Status Context::open(const std::string& bundle, const Params& params,
                     std::unique_ptr<Context>* context) noexcept {
  const Status status = guard([&] {
    if (context == nullptr) input_error("context: a null pointer; pass a place for the result");
    double seconds = 0;
    Opened opened;
    {
      const Timer timer(seconds);
      opened = open_and_load(bundle, params, params.enhance);
    }
    auto shared = std::make_shared<const SharedContext>(std::move(opened), params, seconds);
    const Info& info = shared->info;
    shared->log(LogLevel::info, cat("opened ", info.bundle, " with ", info.engine, " ",
                                    info.engine_version, " on ", info.device, " in ",
                                    fixed(seconds, 3), " s"));
    context->reset(new Context(std::move(shared)));
  });
  if (!status && params.log) {
    try {
      params.log(LogLevel::error, status.message);
    } catch (...) {  // the caller's function failed, not the call
    }
  }
  return status;
}

const Info& Context::info() const noexcept { return shared_->info; }

Status selftest(const std::string& bundle, const Params& params, Selftest* result) noexcept {
  return guard([&] {
    if (result == nullptr) input_error("result: a null pointer; pass a place for the result");
    const Opened opened = open_and_load(bundle, params, true);
    Selftest measured = run_selftest(opened.bundle, *opened.engine, params.limits);
    measured.info = info_of(opened.bundle, *opened.engine);
    *result = std::move(measured);
  });
}

}  // namespace glesam
