#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>

#include "chain.h"
#include "context.h"
#include "encoding.h"
#include "errors.h"
#include "everything.h"
#include "glesam.h"
#include "owned_prompts.h"
#include "prediction.h"
#include "predictor_factory.h"
#include "preprocess.h"
#include "prompts.h"
#include "stop.h"
#include "text.h"
#include "worker.h"

namespace glesam {
namespace {

// Reserves a predictor for a call. Throws Error (busy) if another thread's call has it.
class Reserved {
 public:
  explicit Reserved(std::atomic_flag& flag) : flag_(&flag) {
    if (flag.test_and_set(std::memory_order_acquire)) throw Error(Code::busy, kBusy);
  }
  ~Reserved() {
    if (flag_ != nullptr) flag_->clear(std::memory_order_release);
  }
  void keep() { flag_ = nullptr; }  // the predictor stays reserved
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;

 private:
  std::atomic_flag* flag_;
};

void* const kStreamOfThread = reinterpret_cast<void*>(2);  // cudaStreamPerThread

}  // namespace

struct Predictor::State {
  const std::shared_ptr<const SharedContext> context;
  const std::shared_ptr<Engine> engine;
  Timings timings;
  std::atomic_flag in_use = ATOMIC_FLAG_INIT;
  Stop stop;
  double timeout = 0;  // seconds; 0: none
  FrameEncoder encoder;
  std::shared_ptr<const ImageState> image;
  Worker worker;

  explicit State(std::shared_ptr<const SharedContext> shared)
      : context(std::move(shared)),
        engine(context->engine_for_session()),
        encoder(context, engine, timings, stop) {
    timings.load = context->load_seconds;
    engine->watch(&stop);
  }
  ~State() {
    stop.cancel();
    worker.finish();
    engine->watch(nullptr);  // features may keep the engine
  }

  const Manifest& manifest() const { return context->manifest(); }
  const Limits& limits() const { return context->params.limits; }

  // Reserves the predictor, calls work() and logs its error.
  template <typename Work>
  Status call(Work&& work) noexcept {
    return logged(guard([&] {
      const Reserved reserved(in_use);
      stop.begin(timeout);
      work();
    }));
  }
  Status logged(Status status) const noexcept {
    if (!status) context->log(LogLevel::error, status.message);
    return status;
  }

  Prediction predict(const ImageState* on, const Prompts& prompts, const PredictParams& params);
  Decoded decode_in_batches(const ImageState& on, const Prompts& prompts, bool multimask);
  std::vector<Record> everything(const Frame& frame, const EverythingParams& params);
};

Decoded Predictor::State::decode_in_batches(const ImageState& on, const Prompts& prompts,
                                            bool multimask) {
  Decoded all;
  for (std::size_t first = 0; first < prompts.count; first += context->prompt_batch) {
    stop.check();
    const std::size_t count = std::min(context->prompt_batch, prompts.count - first);
    const Tensors tensors = prompt_tensors(part_of(prompts, first, count, on.geometry),
                                           on.geometry, manifest().coordinates);
    const Decoded decoded = decode(*engine, on.features, tensors);
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

Prediction Predictor::State::predict(const ImageState* on, const Prompts& prompts,
                                     const PredictParams& params) {
  if (on == nullptr) input_error("no image is set; call set_image first");
  check_prompts(prompts, on->geometry, limits());
  const std::size_t masks = prompts.count * (params.multimask ? 3 : 1);
  check_room(params, masks, on->geometry.original);
  Decoded chosen;
  {
    const Timer timer(timings.decoder);
    chosen = decode_in_batches(*on, prompts, params.multimask);
  }
  const Timer timer(timings.masks);
  return prediction_of(std::move(chosen), params, on->upscaler, on->geometry.original,
                       manifest().postprocessing, stop);
}

std::vector<Record> Predictor::State::everything(const Frame& frame,
                                                 const EverythingParams& params) {
  const Region whole = checked_region(frame);
  const auto encode = [&](const Crop& crop) -> CropSearch {
    Frame part = frame;
    part.region = {whole.x + static_cast<int>(crop.x0), whole.y + static_cast<int>(crop.y0),
                   static_cast<int>(crop.x1 - crop.x0), static_cast<int>(crop.y1 - crop.y0)};
    const auto on = encoder.encode(part);
    return {on->geometry,
            [this, on](const Prompts& prompts) { return decode_in_batches(*on, prompts, true); }};
  };
  return search_image(params, manifest(), {whole.height, whole.width}, encode, stop);
}

Predictor::Predictor(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Predictor::~Predictor() = default;

Status Predictor::open(const std::string& bundle, const Params& params,
                       std::unique_ptr<Predictor>* predictor) noexcept {
  if (predictor == nullptr) {
    return guard([] { input_error("predictor: a null pointer; pass a place for the result"); });
  }
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

std::unique_ptr<Predictor> PredictorFactory::make(std::shared_ptr<const SharedContext> context) {
  auto state = std::make_unique<Predictor::State>(std::move(context));
  return std::unique_ptr<Predictor>(new Predictor(std::move(state)));
}

std::unique_ptr<Predictor> PredictorFactory::make(Bundle bundle, std::shared_ptr<Engine> engine,
                                                  const Params& params) {
  Opened opened{std::move(bundle), std::move(engine)};
  return make(std::make_shared<const SharedContext>(std::move(opened), params, 0));
}

Status Predictor::share(std::unique_ptr<Predictor>* session) const noexcept {
  return guard([&] {
    if (session == nullptr) input_error("session: a null pointer; pass a place for the result");
    *session = PredictorFactory::make(state_->context);
  });
}

Status Predictor::set_image(const Image& image) noexcept {
  return state_->call([&] { state_->image = state_->encoder.encode(frame_of(image)); });
}

Status Predictor::set_frame(const Frame& frame) noexcept {
  return state_->call([&] { state_->image = state_->encoder.encode(frame); });
}

Status Predictor::reset_image() noexcept {
  return state_->call([&] { state_->image.reset(); });
}

Status Predictor::encode(const Frame* frames, std::size_t count,
                         std::vector<Features>* features) noexcept {
  return state_->call([&] {
    if (features == nullptr) input_error("features: a null pointer; pass a place for the result");
    if (frames == nullptr) input_error("frames: a null pointer; pass frames");
    std::vector<Features> all;
    for (auto& image : state_->encoder.encode(frames, count)) {
      all.emplace_back();
      all.back().image_ = std::move(image);
    }
    *features = std::move(all);
  });
}

Status Predictor::get_features(Features* features) noexcept {
  return state_->call([&] {
    if (features == nullptr) input_error("features: a null pointer; pass a place for the result");
    if (!state_->image) input_error("no image is set; call set_image first");
    features->image_ = state_->image;
  });
}

Status Predictor::set_features(const Features& features) noexcept {
  return state_->call([&] {
    if (!features) input_error("features: empty; fill them with get_features or encode");
    auto image = std::static_pointer_cast<const ImageState>(features.image_);
    if (image->context != state_->context) {
      input_error("features: of another context; set its image in this one");
    }
    state_->image = std::move(image);
  });
}

Status Predictor::predict(const Prompts& prompts, const PredictParams& params,
                          Prediction* result) noexcept {
  return state_->call([&] {
    if (result == nullptr) input_error("result: a null pointer; pass a place for the result");
    *result = state_->predict(state_->image.get(), prompts, params);
  });
}

Status Predictor::segment_everything(const Frame& frame, const EverythingParams& params,
                                     std::vector<Record>* records) noexcept {
  return state_->call([&] {
    if (records == nullptr) input_error("records: a null pointer; pass a place for the result");
    *records = state_->everything(frame, params);
  });
}

Status Predictor::segment_async(const Frame* frame, const Prompts& prompts,
                                const PredictParams& params,
                                std::function<void(Status, Prediction)> done) noexcept {
  State* const state = state_.get();
  return state->logged(guard([&] {
    if (!done) input_error("done: empty; pass a function that receives the result");
    if (frame != nullptr && frame->memory == Memory::cuda && frame->stream == kStreamOfThread) {
      input_error("stream: cudaStreamPerThread is another stream in the thread that reads the frame; "
                  "pass a stream of your own");
    }
    Reserved reserved(state->in_use);
    const auto side = static_cast<std::size_t>(state->context->info.image_size / 4);
    const auto own = std::make_shared<const OwnedPrompts>(prompts, side, state->limits());
    const std::optional<Frame> given =
        frame != nullptr ? std::optional<Frame>(*frame) : std::nullopt;
    state->stop.begin(state->timeout);
    state->worker.run([state, own, given, params, done = std::move(done)] {
      Prediction result;
      Status status = state->logged(guard([&] {
        state->stop.check();
        auto image = given ? state->encoder.encode(*given) : state->image;
        result = state->predict(image.get(), own->prompts(), params);
        state->image = std::move(image);  // only now: a call that fails changes nothing
      }));
      state->in_use.clear(std::memory_order_release);
      done(std::move(status), std::move(result));  // may destroy the predictor
    });
    reserved.keep();
  }));
}

void Predictor::cancel() noexcept { state_->stop.cancel(); }

Status Predictor::set_timeout(double seconds) noexcept {
  return state_->call([&] {
    if (!(seconds >= 0)) input_error(cat("timeout ", general(seconds), ": must be 0 or more"));
    state_->timeout = seconds;
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
  return state_->call([&] {
    if (decision == nullptr) input_error("decision: a null pointer; pass a place for the result");
    if (!state_->image) input_error("no image is set; call set_image first");
    *decision = state_->image->decision;
  });
}

const Info& Predictor::info() const noexcept { return state_->context->info; }
const Timings& Predictor::timings() const noexcept { return state_->timings; }

}  // namespace glesam
