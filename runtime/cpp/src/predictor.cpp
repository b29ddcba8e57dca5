#include <chrono>
#include <memory>
#include <optional>

#include "chain.h"
#include "errors.h"
#include "glesam.h"
#include "preprocess.h"
#include "prompts.h"
#include "selftest.h"
#include "text.h"

#ifndef GLESAM_VERSION
#error "GLESAM_VERSION is set by CMakeLists.txt"
#endif

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

struct Opened {
  Bundle bundle;
  std::unique_ptr<Engine> engine;
};

Opened open(const std::string& folder, const Params& params, bool enhance) {
  Bundle bundle = open_bundle(folder);
  if (params.threads < 0) input_error("threads: must be 0 or more");
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

struct ImageState {
  Geometry geometry;
  Tensors features;
  Upscaler upscaler;
};

}  // namespace

struct Predictor::State {
  Opened opened;
  bool enhance = true;
  Info info;
  Timings timings;
  std::optional<ImageState> image;

  const Manifest& manifest() const { return opened.bundle.manifest; }
  void set_image(const Image& pixels);
  Prediction predict(const Prompts& prompts, const PredictParams& params);
};

void Predictor::State::set_image(const Image& pixels) {
  Engine& engine = *opened.engine;
  Preprocessed prepared;
  {
    const Timer timer(timings.preprocess);
    prepared = glesam::preprocess(pixels, manifest().preprocessing);
  }
  const std::int64_t size = prepared.geometry.image_size;
  Tensors features;
  {
    const Timer timer(timings.encoder);
    features =
        encode(engine, manifest(), host_tensor({1, 3, size, size}, std::move(prepared.tensor)));
  }
  if (enhance) {
    const Timer timer(timings.enhancer);
    features = glesam::enhance(engine, manifest(), features);
  }
  image = ImageState{prepared.geometry, std::move(features),
                     Upscaler(prepared.geometry, manifest().postprocessing)};
}

Prediction Predictor::State::predict(const Prompts& prompts, const PredictParams& params) {
  if (!image) input_error("no image is set; call set_image first");
  const Postprocessing& rules = manifest().postprocessing;
  const Tensors tensors = prompt_tensors(prompts, image->geometry, manifest().coordinates);
  Decoded chosen;
  {
    const Timer timer(timings.decoder);
    chosen = choose(decode(*opened.engine, image->features, tensors), params.multimask, rules);
  }
  const Timer timer(timings.masks);
  Prediction result;
  result.count = chosen.batch;
  result.masks_per_prompt = chosen.masks;
  result.height = static_cast<std::size_t>(image->geometry.original.height);
  result.width = static_cast<std::size_t>(image->geometry.original.width);
  result.low_res_side = chosen.side;
  const std::size_t count = chosen.batch * chosen.masks, step = chosen.side * chosen.side;
  const std::size_t pixels = result.height * result.width;
  const std::size_t all =
      elements({static_cast<std::int64_t>(count), static_cast<std::int64_t>(pixels)});
  if (params.masks) {
    result.masks.resize(all);
    result.stability.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      result.stability[i] = image->upscaler.binarize(chosen.low_res.data() + i * step,
                                                     result.masks.data() + i * pixels);
    }
  }
  if (params.logits) {
    result.logits.resize(all);
    for (std::size_t i = 0; i < count; ++i) {
      image->upscaler.logits(chosen.low_res.data() + i * step, result.logits.data() + i * pixels);
    }
  }
  limit_for_mask_input(chosen.low_res, rules);
  result.low_res = std::move(chosen.low_res);
  result.scores = std::move(chosen.iou);
  return result;
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
    auto state = std::make_unique<State>();
    {
      const Timer timer(state->timings.load);
      state->opened = glesam::open(bundle, params, params.enhance);
    }
    state->enhance = params.enhance;
    state->info = info_of(state->opened);
    predictor->reset(new Predictor(std::move(state)));
  });
}

Status Predictor::set_image(const Image& image) noexcept {
  return guard([&] { state_->set_image(image); });
}

void Predictor::reset_image() noexcept { state_->image.reset(); }

Status Predictor::predict(const Prompts& prompts, const PredictParams& params,
                          Prediction* result) noexcept {
  return guard([&] {
    if (result == nullptr) input_error("result: a null pointer; pass a place for the result");
    *result = state_->predict(prompts, params);
  });
}

Status Predictor::preprocess(const Image& image, std::vector<float>* tensor) const noexcept {
  return guard([&] {
    if (tensor == nullptr) input_error("tensor: a null pointer; pass a place for the result");
    *tensor = glesam::preprocess(image, state_->manifest().preprocessing).tensor;
  });
}

const Info& Predictor::info() const noexcept { return state_->info; }
const Timings& Predictor::timings() const noexcept { return state_->timings; }

Status selftest(const std::string& bundle, const Params& params, Selftest* result) noexcept {
  return guard([&] {
    if (result == nullptr) input_error("result: a null pointer; pass a place for the result");
    const Opened opened = glesam::open(bundle, params, true);
    Selftest measured = run_selftest(opened.bundle, *opened.engine);
    measured.info = info_of(opened);
    *result = std::move(measured);
  });
}

}  // namespace glesam
