// Fuzzes the C API: calls its functions in any order with any arguments, on a real bundle and an engine
// that fails at will. Beside what the sanitizers see, each call must keep the promises of glesam_c.h.
//
// Usage: GLESAM_FUZZ_BUNDLE=DIR fuzz_calls [libFuzzer's options]
#include <cstdio>
#include <cstdlib>
#include <future>
#include <numeric>

#include "arguments.h"
#include "fake_engine.h"
#include "glesam_c.h"
#include "glesam_follow_c.h"
#include "promises.h"

namespace {

using namespace glesam_fuzz;

const char* bundle() {
  static const char* const folder = std::getenv("GLESAM_FUZZ_BUNDLE");
  MUST(folder != nullptr);
  return folder;
}

// Opening a bundle hashes its files, so all inputs share one context.
const glesam_context* context() {
  static glesam_context* const opened = [] {
    glesam_context* made = nullptr;
    char message[512];
    if (glesam_context_open(bundle(), nullptr, &made, message, sizeof message) != GLESAM_OK) {
      std::fprintf(stderr, "ERROR: %s\n", message);
      std::abort();
    }
    return made;
  }();
  return opened;
}

// A predictor, and the asynchronous call that may be running on it.
class Session {
 public:
  Session() { MUST(glesam_session_create(context(), &predictor_, nullptr, 0) == GLESAM_OK); }
  explicit Session(const Session& other) {
    char message[64];
    const int code = glesam_share(other.predictor_, &predictor_, message, sizeof message);
    check_code(code, message);
    MUST(code == GLESAM_OK);
  }
  ~Session() { glesam_close(predictor_); }  // cancels and waits
  Session& operator=(const Session&) = delete;

  glesam_predictor* get() const { return predictor_; }

  void call(int code) const {
    // While an asynchronous call runs, the predictor's message is its own.
    if (code == GLESAM_BUSY) MUST(running_.valid());
    if (running_.valid()) return;
    check_code(code, glesam_message(predictor_));
  }

  // Starts a call whose arguments live until it is done.
  void start(Draw& draw) {
    if (running_.valid()) wait();
    call_ = std::make_unique<Call>(draw);
    running_ = call_->done.get_future();
    const int code = glesam_segment_async(
        predictor_, draw.ConsumeBool() ? call_->frame.get() : nullptr, call_->prompts.get(),
        call_->request.get(), finished, call_.get());
    if (code == GLESAM_OK) return;
    running_ = {};
    call(code);
  }
  void wait() {
    if (!running_.valid()) return;
    running_.get();
    running_ = {};
  }

 private:
  struct Call {
    explicit Call(Draw& draw) : frame(draw), prompts(draw, kLowRes), request(draw) {}
    AnyFrame frame;
    AnyPrompts prompts;
    AnyRequest request;
    std::promise<void> done;
  };

  static void finished(void* user, int code, const char* message, const glesam_output* output) {
    check_code(code, message);
    MUST((code == GLESAM_OK) == (output != nullptr));
    if (output != nullptr) check_output(*output);
    static_cast<Call*>(user)->done.set_value();
  }

  glesam_predictor* predictor_ = nullptr;
  std::unique_ptr<Call> call_;  // after the predictor is closed, no call uses it
  std::future<void> running_;
};

void set_image(Draw& draw, const Session& session) {
  const AnyFrame frame(draw);
  session.call(glesam_set_frame(session.get(), frame.get()));
}

void encode(Draw& draw, const Session& session) {
  std::vector<std::unique_ptr<AnyFrame>> frames;
  std::vector<const glesam_frame*> pointers;
  for (int left = draw.ConsumeIntegralInRange(0, 3); left > 0; --left) {
    frames.push_back(std::make_unique<AnyFrame>(draw));
    pointers.push_back(draw.ConsumeIntegralInRange(0, 31) == 0 ? nullptr : frames.back()->get());
  }
  std::vector<glesam_features*> features(pointers.size());
  const int code = glesam_encode(session.get(), pointers.data(), pointers.size(), features.data());
  session.call(code);
  for (glesam_features* each : features) {
    MUST((code == GLESAM_OK) == (each != nullptr));
    if (code == GLESAM_OK) session.call(glesam_set_features(session.get(), each));
    glesam_free_features(each);
  }
}

void set_rgb(Draw& draw, const Session& session) {
  const int width = draw.ConsumeIntegralInRange(-1, 30), height = draw.ConsumeIntegralInRange(-1, 30);
  std::size_t stride = draw.ConsumeIntegralInRange<std::size_t>(0, 100);
  if (draw.ConsumeIntegralInRange(0, 7) == 0) stride = SIZE_MAX - stride;
  const std::vector<std::uint8_t> pixels(101 * 30);
  session.call(glesam_set_image(session.get(), pixels.data(), width, height, stride));
}

void predict(Draw& draw, const Session& session) {
  const AnyPrompts prompts(draw, kLowRes);
  const AnyRequest request(draw);
  Sized<glesam_output> output(draw, {});
  const int code = glesam_predict_as(session.get(), prompts.get(), request.get(), output.get());
  session.call(code);
  if (code != GLESAM_OK) MUST(!output.changed());
  // A smaller struct hides arrays that others are compared with.
  if (code == GLESAM_OK && output.read().struct_size >= sizeof(glesam_output)) check_output(output.read());
}

void predict_plain(Draw& draw, const Session& session) {
  const AnyPrompts prompts(draw, kLowRes);
  glesam_result result{};
  const int code = glesam_predict(session.get(), prompts.get(), draw.ConsumeBool(), &result);
  session.call(code);
  MUST((code == GLESAM_OK) == (result.masks != nullptr));
}

void search(Draw& draw, const Session& session) {
  const AnyFrame frame(draw);
  glesam_everything params{};
  params.struct_size = sizeof params;
  MUST(glesam_default_everything(&params) == GLESAM_OK);
  params.points_per_side = draw.ConsumeIntegralInRange(0, 4);
  if (draw.ConsumeIntegralInRange(0, 15) == 0) params.points_per_side = 1 << 20;  // refused
  params.points_per_batch = draw.ConsumeIntegralInRange(0, 20);
  params.pred_iou_thresh = number(draw, -1, 1.1);
  params.stability_score_thresh = number(draw, -1, 1.1);
  params.stability_score_offset = number(draw, -1, 3);
  params.box_nms_thresh = number(draw, -0.1, 1.1);
  params.crop_n_layers = draw.ConsumeIntegralInRange(-1, 1);
  params.crop_nms_thresh = number(draw, -0.1, 1.1);
  params.crop_overlap_ratio = number(draw, -0.1, 1.1);
  params.crop_n_points_downscale_factor = draw.ConsumeIntegralInRange(0, 3);
  params.min_mask_region_area = draw.ConsumeIntegralInRange(-1, 50);
  params.masks = draw.ConsumeBool();
  const Sized<glesam_everything> sized(draw, params);
  std::size_t count = 0;
  const int code = glesam_segment_everything(
      session.get(), frame.get(), const_cast<Sized<glesam_everything>&>(sized).get(), &count);
  session.call(code);
  for (std::size_t i = 0; i < count + 1; ++i) {
    Sized<glesam_record> record(draw, {});
    const int got = glesam_get_record(session.get(), i, record.get());
    session.call(got);
    if (got != GLESAM_OK) MUST(!record.changed());
    if (got != GLESAM_OK || code != GLESAM_OK) continue;
    MUST(i < count);
    const glesam_record found = record.read();
    if (found.mask == nullptr) continue;
    const std::size_t pixels = frame.width() * frame.height();
    MUST(std::accumulate(found.mask, found.mask + pixels, std::int64_t{0}) == found.area);
  }
}

void ask(Draw& draw, const Session& session) {
  Sized<glesam_info> info(draw, {});
  session.call(glesam_get_info(session.get(), info.get()));
  Sized<glesam_timings> timings(draw, {});
  session.call(glesam_get_timings(session.get(), timings.get()));
  Sized<glesam_decision> decision(draw, {});
  session.call(glesam_get_decision(session.get(), decision.get()));
}

void open_another(Draw& draw) {
  glesam_options options{};
  options.params = glesam_default_params();
  options.params.threads = draw.ConsumeIntegralInRange(-1, 2);
  options.params.skip_enhancer = draw.ConsumeBool();
  options.params.max_prompt_batch = draw.ConsumeIntegralInRange<std::size_t>(0, 3);
  options.params.limits.json_mib = draw.ConsumeBool();
  options.streams = draw.ConsumeIntegralInRange(-1, 2);
  options.gate = draw.ConsumeIntegralInRange(-1, 3);
  Sized<glesam_options> sized(draw, options);
  glesam_context* opened = nullptr;
  std::vector<char> message(draw.ConsumeIntegralInRange<std::size_t>(1, 200));
  const int code = glesam_context_open(bundle(), sized.get(), &opened, message.data(), message.size());
  MUST((code == GLESAM_OK) == (opened != nullptr));
  if (message.size() > 1) check_code(code, message.data());
  glesam_context_close(opened);
}

// Follows objects with a session of its own, which nothing else uses.
void follow(Draw& draw) {
  const Session session;
  glesam_follow_params params{};
  params.min_score = number(draw, -0.1, 1.1);
  params.min_stability = number(draw, -0.1, 1.1);
  params.mask_prompt = draw.ConsumeIntegralInRange(-1, 3);
  Sized<glesam_follow_params> sized(draw, params);
  glesam_follower* follower = nullptr;
  const int opened = glesam_follow_open(session.get(), sized.get(), &follower);
  MUST((opened == GLESAM_OK) == (follower != nullptr));
  while (follower != nullptr && draw.remaining_bytes() > 0) {
    int code = GLESAM_OK;
    const AnyFrame frame(draw);
    const AnyPrompts prompts(draw, kLowRes);
    const std::size_t number = draw.ConsumeIntegralInRange<std::size_t>(0, 3);
    switch (draw.ConsumeIntegralInRange(0, 4)) {
      case 0: code = glesam_follow_start(follower, frame.get(), prompts.get()); break;
      case 1: code = glesam_follow_next(follower, frame.get()); break;
      case 2: code = glesam_follow_prompt(follower, number, prompts.get()); break;
      case 3: failure = draw.ConsumeIntegralInRange<int>(kNone, kNotANumber); continue;
      default: {
        Sized<glesam_followed> object(draw, {});
        code = glesam_follow_get(follower, number, object.get());
        if (code == GLESAM_OK) MUST(number < glesam_follow_count(follower));
        if (code != GLESAM_OK) MUST(!object.changed());
      }
    }
    check_code(code, glesam_follow_message(follower));
  }
  glesam_follow_close(follower);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Draw draw(data, size);
  failure = kNone;
  std::vector<std::unique_ptr<Session>> sessions;
  sessions.push_back(std::make_unique<Session>());
  glesam_features* features = nullptr;
  while (draw.remaining_bytes() > 0) {
    const std::size_t chosen = draw.ConsumeIntegralInRange<std::size_t>(0, sessions.size() - 1);
    Session& session = *sessions[chosen];
    switch (draw.ConsumeIntegralInRange(0, 17)) {
      case 0: case 1: set_image(draw, session); break;
      case 2: set_rgb(draw, session); break;
      case 3: case 4: predict(draw, session); break;
      case 5: predict_plain(draw, session); break;
      case 6: search(draw, session); break;
      case 7: session.start(draw); break;
      case 8: glesam_cancel(session.get()); break;
      case 9: session.wait(); break;
      case 10: session.call(glesam_reset_image(session.get())); break;
      case 11: session.call(glesam_set_timeout(session.get(), number(draw, -1, 1))); break;
      case 12: ask(draw, session); break;
      case 13:
        failure = draw.ConsumeIntegralInRange<int>(kNone, kNotANumber);
        break;
      case 14:
        if (features == nullptr) {
          session.call(glesam_get_features(session.get(), &features));
        } else {
          session.call(glesam_set_features(session.get(), features));
          if (draw.ConsumeBool()) {
            glesam_free_features(features);
            features = nullptr;
          }
        }
        break;
      case 15:
        if (sessions.size() < 4) {
          sessions.push_back(std::make_unique<Session>(session));
        } else {
          sessions.erase(sessions.begin() + static_cast<std::ptrdiff_t>(chosen));
        }
        break;
      case 16: encode(draw, session); break;
      default:
        if (draw.ConsumeIntegralInRange(0, 7) == 0) {
          open_another(draw);
        } else {
          follow(draw);
        }
    }
  }
  sessions.clear();
  glesam_free_features(features);
  return 0;
}
