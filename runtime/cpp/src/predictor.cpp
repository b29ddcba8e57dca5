#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "chain.h"
#include "enhancing.h"
#include "errors.h"
#include "glesam.h"
#include "prediction.h"
#include "predictor_factory.h"
#include "preprocess.h"
#include "prompts.h"
#include "selftest.h"
#include "text.h"

namespace glesam {
namespace {

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

// Reserves a predictor for a call. Throws Error (busy) if another thread's call has it.
class Reserved {
 public:
  explicit Reserved(std::atomic_flag& flag) : flag_(flag) {
    if (flag.test_and_set(std::memory_order_acquire)) throw Error(Code::busy, kBusy);
  }
  ~Reserved() { flag_.clear(std::memory_order_release); }
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;

 private:
  std::atomic_flag& flag_;
};

// Threads of an engine wait for each other by spinning: with 32 per core, nano takes 15 times as
// long as with one.
constexpr unsigned threads_per_core = 8;

void check_threads(int threads) {
  if (threads < 0) input_error("threads: must be 0 or more");
  const unsigned cores = std::thread::hardware_concurrency();  // 0 if unknown
  if (cores > 0 && static_cast<unsigned>(threads) > threads_per_core * cores)
    input_error("threads " + std::to_string(threads) + ": more than " +
                std::to_string(threads_per_core) +
                " per core make the engine many times slower, and this process has " +
                std::to_string(cores));
}

struct Opened {
  Bundle bundle;
  std::shared_ptr<Engine> engine;
};

Opened open(const std::string& folder, const Params& params, bool enhance) {
  Bundle bundle = open_bundle(folder, params.limits);
  check_threads(params.threads);
  std::vector<Stage> stages{Stage::encoder, Stage::decoder};
  if (enhance) stages.insert(stages.begin() + 1, Stage::enhancer);
  const EngineOptions options{params.device, params.precision, params.engine_library,
                              params.threads};
  auto engine =
      load_engine(bundle, params.backend.empty() ? "auto" : params.backend, options, stages);
  return {std::move(bundle), std::move(engine)};
}

Info info_of(const Opened& opened) {
  const Manifest& manifest = opened.bundle.manifest;
  const EngineDescription& engine = opened.engine->describe();
  return {opened.bundle.path.string(),
          opened.bundle.sha256,
          manifest.model.family,
          manifest.model.preset,
          manifest.model.trained,
          static_cast<std::size_t>(manifest.preprocessing.image_size),
          engine.engine,
          engine.version,
          engine.provider,
          engine.device};
}

// Returns the maximum number of prompts per run of the decoder.
std::size_t prompt_batch_of(const Opened& opened, std::size_t wanted) {
  constexpr std::size_t kOnCpu = 8, kElsewhere = 64;  // as in the Python runtime, which says why
  const std::string& device = opened.engine->describe().device;
  if (wanted == 0) wanted = device == "cpu" || device == "CPU" ? kOnCpu : kElsewhere;
  const StageRecord& decoder = opened.bundle.manifest.stages.at(Stage::decoder);
  for (const TensorSpec& spec : decoder.inputs) {
    if (spec.name != "point_coords") continue;
    const auto range = decoder.profile.find(spec.shape.at(0).symbol);
    if (range == decoder.profile.end()) continue;
    wanted =
        std::min(wanted, static_cast<std::size_t>(std::max<std::int64_t>(range->second.max, 1)));
  }
  return wanted;
}

struct ImageState {
  std::shared_ptr<Engine> engine;  // outlives its tensors
  Geometry geometry;
  Decision decision;
  Tensors features;
  Upscaler upscaler;
};

}  // namespace

struct Predictor::State {
  Opened opened;
  bool enhance = true;
  GateChoice gate;
  Limits limits;
  std::size_t prompt_batch = 1;
  Info info;
  Timings timings;
  std::atomic_flag in_use = ATOMIC_FLAG_INIT;
  std::shared_ptr<const ImageState> image;

  State(Opened parts, const Params& params)
      : opened(std::move(parts)),
        enhance(params.enhance),
        gate(params.enhance ? gate_of(opened.bundle.manifest, opened.bundle.path.string(), params.gate)
                            : GateChoice{}),
        limits(params.limits),
        prompt_batch(prompt_batch_of(opened, params.max_prompt_batch)),
        info(info_of(opened)) {}

  const Manifest& manifest() const { return opened.bundle.manifest; }
  void set_image(const Frame& frame);
  Prediction predict(const Prompts& prompts, const PredictParams& params);
  Decoded decode_in_batches(const Prompts& prompts, bool multimask);
};

void Predictor::State::set_image(const Frame& frame) {
  Engine& engine = *opened.engine;
  Preprocessed prepared;
  {
    const Timer timer(timings.preprocess);
    prepared = glesam::preprocess(frame, manifest().preprocessing, limits);
  }
  const std::int64_t size = prepared.geometry.image_size;
  Tensors features;
  {
    const Timer timer(timings.encoder);
    features =
        encode(engine, manifest(), host_tensor({1, 3, size, size}, std::move(prepared.tensor)));
    engine.finish();
  }
  timings.gate = timings.enhancer = 0;
  Decision decision{enhance, false, 0};
  if (gate) {
    const Timer timer(timings.gate);
    const Tensor host = engine.to_host(features.at(kEmbeddings));
    decision.estimate =
        estimate_gain(*gate, host.host, host.shape.at(3), prepared.geometry);
    decision.estimated = true;
    decision.enhanced = decision.estimate > gate->threshold;
  }
  if (decision.enhanced) {
    const Timer timer(timings.enhancer);
    features = glesam::enhance(engine, manifest(), features);
    engine.finish();
  }
  image = std::make_shared<const ImageState>(
      ImageState{opened.engine, prepared.geometry, decision, std::move(features),
                 Upscaler(prepared.geometry, manifest().postprocessing)});
}

Decoded Predictor::State::decode_in_batches(const Prompts& prompts, bool multimask) {
  Decoded all;
  for (std::size_t first = 0; first < prompts.count; first += prompt_batch) {
    const std::size_t count = std::min(prompt_batch, prompts.count - first);
    const Tensors tensors = prompt_tensors(part_of(prompts, first, count, image->geometry),
                                           image->geometry, manifest().coordinates);
    const Decoded decoded = decode(*opened.engine, image->features, tensors);
    if (!is_usable(decoded)) {
      backend_error(cat("decoder on ", info.engine,
                        ": returned NaN or an infinite IoU; test the bundle with --selftest, or "
                        "use another backend or precision"));
    }
    const Decoded part = choose(decoded, multimask, manifest().postprocessing);
    all.batch += part.batch;
    all.masks = part.masks;
    all.side = part.side;
    all.low_res.insert(all.low_res.end(), part.low_res.begin(), part.low_res.end());
    all.iou.insert(all.iou.end(), part.iou.begin(), part.iou.end());
  }
  return all;
}

Prediction Predictor::State::predict(const Prompts& prompts, const PredictParams& params) {
  if (!image) input_error("no image is set; call set_image first");
  check_prompts(prompts, image->geometry, limits);
  const std::size_t masks = prompts.count * (params.multimask ? 3 : 1);
  check_room(params, masks, image->geometry.original);
  Decoded chosen;
  {
    const Timer timer(timings.decoder);
    chosen = decode_in_batches(prompts, params.multimask);
  }
  const Timer timer(timings.masks);
  return prediction_of(std::move(chosen), params, image->upscaler, image->geometry.original,
                       manifest().postprocessing);
}

Params default_params() {
  Params params;
  params.backend = "auto";
  return params;
}

std::vector<std::string> backends() { return compiled_backends(); }

const char* version() noexcept { return GLESAM_VERSION; }

Predictor::Predictor(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Predictor::~Predictor() = default;

Status Predictor::open(const std::string& bundle, const Params& params,
                       std::unique_ptr<Predictor>* predictor) noexcept {
  return guard([&] {
    if (predictor == nullptr) input_error("predictor: a null pointer; pass a place for the result");
    double seconds = 0;
    Opened opened;
    {
      const Timer timer(seconds);
      opened = glesam::open(bundle, params, params.enhance);
    }
    auto made = PredictorFactory::make(std::move(opened.bundle), std::move(opened.engine), params);
    made->state_->timings.load = seconds;
    *predictor = std::move(made);
  });
}

std::unique_ptr<Predictor> PredictorFactory::make(Bundle bundle, std::shared_ptr<Engine> engine,
                                                  const Params& params) {
  auto state =
      std::make_unique<Predictor::State>(Opened{std::move(bundle), std::move(engine)}, params);
  return std::unique_ptr<Predictor>(new Predictor(std::move(state)));
}

Status Predictor::set_image(const Image& image) noexcept {
  return guard([&] {
    const Reserved reserved(state_->in_use);
    state_->set_image(frame_of(image));
  });
}

Status Predictor::set_frame(const Frame& frame) noexcept {
  return guard([&] {
    const Reserved reserved(state_->in_use);
    state_->set_image(frame);
  });
}

Status Predictor::reset_image() noexcept {
  return guard([&] {
    const Reserved reserved(state_->in_use);
    state_->image.reset();
  });
}

Status Predictor::get_features(Features* features) noexcept {
  return guard([&] {
    if (features == nullptr) input_error("features: a null pointer; pass a place for the result");
    const Reserved reserved(state_->in_use);
    if (!state_->image) input_error("no image is set; call set_image first");
    features->image_ = state_->image;
  });
}

Status Predictor::set_features(const Features& features) noexcept {
  return guard([&] {
    const Reserved reserved(state_->in_use);
    if (!features) input_error("features: empty; fill them with get_features");
    auto image = std::static_pointer_cast<const ImageState>(features.image_);
    if (image->engine != state_->opened.engine) {
      input_error("features: of another predictor; set its image in this one");
    }
    state_->image = std::move(image);
  });
}

Status Predictor::predict(const Prompts& prompts, const PredictParams& params,
                          Prediction* result) noexcept {
  return guard([&] {
    if (result == nullptr) input_error("result: a null pointer; pass a place for the result");
    const Reserved reserved(state_->in_use);
    *result = state_->predict(prompts, params);
  });
}

Status Predictor::preprocess(const Image& image, std::vector<float>* tensor) const noexcept {
  return guard([&] {
    if (tensor == nullptr) input_error("tensor: a null pointer; pass a place for the result");
    const Preprocessing& rules = state_->manifest().preprocessing;
    *tensor = glesam::preprocess(frame_of(image), rules, state_->limits).tensor;
  });
}

Status Predictor::preprocess(const Frame& frame, std::vector<float>* tensor) const noexcept {
  return guard([&] {
    if (tensor == nullptr) input_error("tensor: a null pointer; pass a place for the result");
    const Preprocessing& rules = state_->manifest().preprocessing;
    *tensor = glesam::preprocess(frame, rules, state_->limits).tensor;
  });
}

Status Predictor::decision(Decision* decision) noexcept {
  return guard([&] {
    if (decision == nullptr) input_error("decision: a null pointer; pass a place for the result");
    const Reserved reserved(state_->in_use);
    if (!state_->image) input_error("no image is set; call set_image first");
    *decision = state_->image->decision;
  });
}

const Info& Predictor::info() const noexcept { return state_->info; }
const Timings& Predictor::timings() const noexcept { return state_->timings; }

Status selftest(const std::string& bundle, const Params& params, Selftest* result) noexcept {
  return guard([&] {
    if (result == nullptr) input_error("result: a null pointer; pass a place for the result");
    const Opened opened = glesam::open(bundle, params, true);
    Selftest measured = run_selftest(opened.bundle, *opened.engine, params.limits);
    measured.info = info_of(opened);
    *result = std::move(measured);
  });
}

}  // namespace glesam
