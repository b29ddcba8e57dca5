#include <algorithm>
#include <atomic>
#include <memory>

#include "chain.h"
#include "context.h"
#include "errors.h"
#include "glesam.h"
#include "prediction.h"
#include "predictor_factory.h"
#include "preprocess.h"
#include "prompts.h"
#include "text.h"

namespace glesam {
namespace {

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

struct ImageState {
  std::shared_ptr<const void> context;
  std::shared_ptr<Engine> engine;  // outlives its tensors
  Geometry geometry;
  Decision decision;
  Tensors features;
  Upscaler upscaler;
};

}  // namespace

struct Predictor::State {
  const std::shared_ptr<const Context::Shared> context;
  const std::shared_ptr<Engine> engine;
  Timings timings;
  std::atomic_flag in_use = ATOMIC_FLAG_INIT;
  std::shared_ptr<const ImageState> image;

  explicit State(std::shared_ptr<const Context::Shared> shared)
      : context(std::move(shared)), engine(context->engine_for_session()) {
    timings.load = context->load_seconds;
  }

  const Manifest& manifest() const { return context->manifest(); }
  const Limits& limits() const { return context->params.limits; }
  void set_image(const Frame& frame);
  Prediction predict(const Prompts& prompts, const PredictParams& params);
  Decoded decode_in_batches(const Prompts& prompts, bool multimask);
};

void Predictor::State::set_image(const Frame& frame) {
  Preprocessed prepared;
  {
    const Timer timer(timings.preprocess);
    prepared = glesam::preprocess(frame, manifest().preprocessing, limits());
  }
  const std::int64_t size = prepared.geometry.image_size;
  Tensors features;
  {
    const Timer timer(timings.encoder);
    features =
        encode(*engine, manifest(), host_tensor({1, 3, size, size}, std::move(prepared.tensor)));
    engine->finish();
  }
  timings.gate = timings.enhancer = 0;
  Decision decision{context->params.enhance, false, 0};
  if (const GateChoice& gate = context->gate) {
    const Timer timer(timings.gate);
    const Tensor host = engine->to_host(features.at(kEmbeddings));
    decision.estimate = estimate_gain(*gate, host.host, host.shape.at(3), prepared.geometry);
    decision.estimated = true;
    decision.enhanced = decision.estimate > gate->threshold;
  }
  if (decision.enhanced) {
    const Timer timer(timings.enhancer);
    features = glesam::enhance(*engine, manifest(), features);
    engine->finish();
  }
  image = std::make_shared<const ImageState>(
      ImageState{context, engine, prepared.geometry, decision, std::move(features),
                 Upscaler(prepared.geometry, manifest().postprocessing)});
}

Decoded Predictor::State::decode_in_batches(const Prompts& prompts, bool multimask) {
  Decoded all;
  for (std::size_t first = 0; first < prompts.count; first += context->prompt_batch) {
    const std::size_t count = std::min(context->prompt_batch, prompts.count - first);
    const Tensors tensors = prompt_tensors(part_of(prompts, first, count, image->geometry),
                                           image->geometry, manifest().coordinates);
    const Decoded decoded = decode(*engine, image->features, tensors);
    if (!is_usable(decoded)) {
      backend_error(cat("decoder on ", context->info.engine,
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
  check_prompts(prompts, image->geometry, limits());
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

Predictor::Predictor(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Predictor::~Predictor() = default;

Status Predictor::open(const std::string& bundle, const Params& params,
                       std::unique_ptr<Predictor>* predictor) noexcept {
  std::unique_ptr<Context> context;
  const Status status = Context::open(bundle, params, &context);
  return status ? context->create_session(predictor) : status;
}

Status Context::create_session(std::unique_ptr<Predictor>* session) const noexcept {
  return guard([&] {
    if (session == nullptr) input_error("session: a null pointer; pass a place for the result");
    *session = PredictorFactory::make(shared_);
  });
}

std::unique_ptr<Predictor> PredictorFactory::make(std::shared_ptr<const Context::Shared> context) {
  auto state = std::make_unique<Predictor::State>(std::move(context));
  return std::unique_ptr<Predictor>(new Predictor(std::move(state)));
}

std::unique_ptr<Predictor> PredictorFactory::make(Bundle bundle, std::shared_ptr<Engine> engine,
                                                  const Params& params) {
  Opened opened{std::move(bundle), std::move(engine)};
  return make(std::make_shared<const Context::Shared>(std::move(opened), params, 0));
}

Status Predictor::share(std::unique_ptr<Predictor>* session) const noexcept {
  return guard([&] {
    if (session == nullptr) input_error("session: a null pointer; pass a place for the result");
    *session = PredictorFactory::make(state_->context);
  });
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
    if (image->context != state_->context) {
      input_error("features: of another context; set its image in this one");
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
    *tensor = glesam::preprocess(frame_of(image), rules, state_->limits()).tensor;
  });
}

Status Predictor::preprocess(const Frame& frame, std::vector<float>* tensor) const noexcept {
  return guard([&] {
    if (tensor == nullptr) input_error("tensor: a null pointer; pass a place for the result");
    const Preprocessing& rules = state_->manifest().preprocessing;
    *tensor = glesam::preprocess(frame, rules, state_->limits()).tensor;
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

const Info& Predictor::info() const noexcept { return state_->context->info; }
const Timings& Predictor::timings() const noexcept { return state_->timings; }

}  // namespace glesam
