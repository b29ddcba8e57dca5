// Runs a predictor on an engine that fails or waits when a test says so.
// Usage: engines BUNDLE BACKEND [LIBRARY]
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <future>
#include <limits>
#include <mutex>
#include <new>

#include "engine.h"
#include "errors.h"
#include "images.h"
#include "predictor_factory.h"

namespace {

using namespace glesam;
using namespace glesam_tests;

std::string folder, backend, library;

enum class When { never, before, after, finish };

// What the engine does next. The test owns it, and the predictor the engine.
struct Plan {
  Stage stage = Stage::encoder;
  When when = When::never;
  bool memory = false;          // whether the failure is one of memory
  std::shared_future<void> go;  // if valid, a run waits for it
  std::promise<void> waiting;   // set when a run starts to wait
  std::string spoiled;          // an output of which the last value becomes `value`
  float value = 0;
  std::vector<std::int64_t> batches;  // the number of prompts of each run of the decoder
};

// Runs the graphs on a real engine, and fails before or after a stage.
class PlannedEngine final : public Engine {
 public:
  PlannedEngine(std::unique_ptr<Engine> engine, Plan& plan)
      : engine_(std::move(engine)), plan_(plan) {}
  const EngineDescription& describe() const override { return engine_->describe(); }
  Tensors run(Stage stage, const Tensors& inputs) override {
    if (const auto go = plan_.go; go.valid()) {
      plan_.waiting.set_value();
      go.wait();
    }
    if (stage == Stage::decoder) plan_.batches.push_back(inputs.at("point_coords").shape.at(0));
    last_ = stage;
    fail_at(When::before);
    Tensors outputs = engine_->run(stage, inputs);
    fail_at(When::after);
    if (const auto found = outputs.find(plan_.spoiled); found != outputs.end()) {
      const Tensor host = engine_->to_host(found->second);
      std::vector<float> values(host.host, host.host + elements(host.shape));
      values.back() = plan_.value;
      found->second = host_tensor(host.shape, std::move(values));
    }
    return outputs;
  }
  void finish() override {
    engine_->finish();
    fail_at(When::finish);
  }
  Tensor to_host(const Tensor& tensor) override { return engine_->to_host(tensor); }
  std::unique_ptr<Engine> share() override {
    return std::make_unique<PlannedEngine>(engine_->share(), plan_);
  }

 private:
  void fail_at(When when) const {
    if (plan_.when != when || plan_.stage != last_) return;
    if (plan_.memory) throw std::bad_alloc();
    backend_error("the engine failed as planned");
  }

  std::unique_ptr<Engine> engine_;
  Plan& plan_;
  Stage last_ = Stage::encoder;
};

std::unique_ptr<Predictor> opened(Plan& plan, std::size_t max_prompt_batch = 0, int threads = 0) {
  Bundle bundle = open_bundle(folder);
  Params params = default_params();
  params.max_prompt_batch = max_prompt_batch;
  const EngineOptions options{"", "", library, threads};
  auto engine =
      load_engine(bundle, backend, options, {Stage::encoder, Stage::enhancer, Stage::decoder});
  return PredictorFactory::make(std::move(bundle),
                                std::make_unique<PlannedEngine>(std::move(engine), plan), params);
}

void a_failure_in_the_middle_keeps_the_image() {
  Plan plan;
  const auto predictor = opened(plan);
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor, 2);
  for (const Stage stage : {Stage::encoder, Stage::enhancer}) {
    for (const When when : {When::before, When::after, When::finish}) {
      for (const bool memory : {false, true}) {
        plan.stage = stage;
        plan.when = when;
        plan.memory = memory;
        REFUSED(set_image(*predictor, 2), memory ? Code::out_of_memory : Code::backend,
                memory ? "not enough memory" : "the engine failed as planned");
        plan.when = When::never;
        const Prediction after = predicted(*predictor, 2);
        CHECK(after.low_res == before.low_res && after.masks == before.masks);
      }
    }
  }
  CHECK(set_image(*predictor, 2));
  CHECK(predicted(*predictor, 2).low_res != before.low_res);
}

void a_failed_prediction_changes_nothing() {
  Plan plan;
  const auto predictor = opened(plan, 2);
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor, 2);
  Prediction kept = before;
  plan.stage = Stage::decoder;
  plan.when = When::after;
  REFUSED(predict(*predictor, 5, &kept), Code::backend, "as planned");
  CHECK(kept.low_res == before.low_res && kept.count == 2);
  plan.when = When::never;
  CHECK(predicted(*predictor, 2).low_res == before.low_res);
}

// NaN would be a mask of no pixels, and infinity would win every choice between masks.
void results_that_are_no_numbers_are_refused() {
  Plan plan;
  const auto predictor = opened(plan, 2);
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor, 3);
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const std::pair<const char*, float> spoiled[] = {{"low_res_masks", nan},
                                                   {"iou_predictions", nan},
                                                   {"iou_predictions", infinity},
                                                   {"iou_predictions", -infinity}};
  for (const auto& [output, value] : spoiled) {
    plan.spoiled = output;
    plan.value = value;
    Prediction kept = before;
    REFUSED(predict(*predictor, 3, &kept), Code::backend, "returned NaN or an infinite IoU");
    CHECK(kept.low_res == before.low_res);
  }
  plan.spoiled = "low_res_masks";  // as Python does, since a sure pixel is not an error
  plan.value = infinity;
  CHECK_EQUAL(predicted(*predictor, 3).count, std::size_t{3});
  plan.spoiled.clear();
  CHECK(predicted(*predictor, 3).low_res == before.low_res);
}

void prompts_run_in_batches() {
  Plan plan;
  using Batches = std::vector<std::int64_t>;
  const auto by_default = opened(plan);
  CHECK(set_image(*by_default, 1));
  const Prediction all = predicted(*by_default, 20);
  CHECK(plan.batches == (Batches{8, 8, 4}));
  plan.batches.clear();
  const auto by_three = opened(plan, 3);
  CHECK(set_image(*by_three, 1));
  const Prediction same = predicted(*by_three, 20);
  CHECK(plan.batches == (Batches{3, 3, 3, 3, 3, 3, 2}));
  for (std::size_t i = 0; i < all.low_res.size(); ++i) {
    CHECK(std::abs(all.low_res[i] - same.low_res[i]) < 1e-3F);
  }
  // The last prompt of a batch and the first of the next one, each alone, with all kinds of parts.
  std::vector<double> points, boxes = boxes_of(20);
  std::vector<float> labels;
  for (std::size_t i = 0; i < 20; ++i) {
    const auto place = static_cast<double>(i);
    points.insert(points.end(), {place + 5, place + 6, place + 20, place + 8});
    labels.insert(labels.end(), {1, 0});
  }
  Prompts prompts;
  prompts.count = 20;
  prompts.points_per_prompt = 2;
  prompts.points = points.data();
  prompts.labels = labels.data();
  prompts.boxes = boxes.data();
  prompts.mask_input = same.low_res.data();
  Prediction mixed, alone;
  CHECK(by_three->predict(prompts, {}, &mixed));
  for (const std::size_t i : {0, 2, 3, 19}) {
    Prompts one = prompts;
    one.count = 1;
    one.points += 4 * i;
    one.labels += 2 * i;
    one.boxes += 4 * i;
    one.mask_input += i * same.low_res_side * same.low_res_side;
    CHECK(by_three->predict(one, {}, &alone));
    for (std::size_t k = 0; k < alone.low_res.size(); ++k) {
      CHECK(std::abs(alone.low_res[k] - mixed.low_res[i * alone.low_res.size() + k]) < 1e-3F);
    }
    CHECK(std::abs(alone.scores[0] - mixed.scores[i]) < 1e-4F);
  }
}

void one_call_at_a_time() {
  Plan plan;
  const auto predictor = opened(plan);
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor);
  std::promise<void> go;
  plan.go = go.get_future().share();
  std::future<void> waits = plan.waiting.get_future();
  auto running = std::async(std::launch::async, [&] {
    Prediction result;
    Status status = predict(*predictor, 1, &result);
    return std::make_pair(std::move(status), std::move(result));
  });
  waits.wait();
  Prediction untouched;
  REFUSED(set_image(*predictor, 2), Code::busy, "in use by another thread; give each thread");
  REFUSED(predict(*predictor, 1, &untouched), Code::busy, "in use by another thread");
  REFUSED(predictor->reset_image(), Code::busy, "in use by another thread");
  CHECK_EQUAL(untouched.count, std::size_t{0});
  std::vector<float> tensor;
  const auto pixels = pixels_of(3);
  CHECK(predictor->preprocess({pixels.data(), kWidth, kHeight}, &tensor));
  go.set_value();
  const auto [status, result] = running.get();
  plan.go = {};
  CHECK_EQUAL(status.message, "");
  CHECK(result.low_res == before.low_res);
  CHECK(predicted(*predictor).low_res == before.low_res);  // it is free again
}

// The memory that this process may still map is limited to `extra` bytes while `work` runs.
template <typename Work>
Status with_little_memory(std::size_t extra, Work&& work) {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before{};
  CHECK(getrlimit(RLIMIT_AS, &before) == 0);
  rlimit limited = before;
  limited.rlim_cur = pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) + extra;
  CHECK(setrlimit(RLIMIT_AS, &limited) == 0);
  Status status = work();
  CHECK(setrlimit(RLIMIT_AS, &before) == 0);
  return status;
}

// The engine itself runs out of memory: 3000 points take hundreds of megabytes for attention.
// Cancels a call while the engine waits; the run of a graph ends after it.
void a_call_is_cancelled() {
  Plan plan;
  const auto predictor = opened(plan, 2);
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor, 5);
  predictor->cancel();  // no call runs, so nothing happens
  CHECK(predicted(*predictor, 5).low_res == before.low_res);
  for (const bool image : {true, false}) {
    std::promise<void> go;
    plan.go = go.get_future().share();
    plan.waiting = std::promise<void>();
    std::future<void> waits = plan.waiting.get_future();
    Prediction kept = before;
    auto running = std::async(std::launch::async, [&] {
      return image ? set_image(*predictor, 2) : predict(*predictor, 5, &kept);
    });
    waits.wait();
    predictor->cancel();
    plan.go = {};
    const std::size_t runs = plan.batches.size();
    go.set_value();
    REFUSED(running.get(), Code::cancelled, "cancelled by the caller");
    CHECK(plan.batches.size() <= runs + 1);  // the batch that ran, and no further one
    CHECK(kept.low_res == before.low_res);
    CHECK(predicted(*predictor, 5).low_res == before.low_res);
  }
}

void a_call_has_a_time_limit() {
  Plan plan;
  const auto predictor = opened(plan);
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor);
  REFUSED(predictor->set_timeout(-1), Code::invalid_input, "timeout -1: must be 0 or more");
  CHECK(predictor->set_timeout(1e-9));
  REFUSED(set_image(*predictor, 2), Code::timeout, "longer than its timeout");
  Prediction kept = before;
  REFUSED(predict(*predictor, 1, &kept), Code::timeout, "longer than its timeout");
  CHECK(predictor->set_timeout(1e30));
  CHECK(predicted(*predictor).low_res == before.low_res);
}

// The backend itself interrupts the run of a graph.
void the_engine_is_interrupted() {
  std::unique_ptr<Predictor> predictor;
  Params params = default_params();
  params.backend = backend;
  params.engine_library = library;
  CHECK_EQUAL(Predictor::open(folder, params, &predictor).message, "");
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor, 8);
  int cancelled = 0;
  for (int i = 0; i < 20; ++i) {
    auto running = std::async(std::launch::async, [&] { return set_image(*predictor, 2); });
    while (running.wait_for(std::chrono::milliseconds(2)) != std::future_status::ready) {
      predictor->cancel();
    }
    const Status status = running.get();
    CHECK(status || status.code == Code::cancelled);
    cancelled += status.code == Code::cancelled;
  }
  CHECK(cancelled > 0);
  CHECK(set_image(*predictor, 1));
  CHECK(predicted(*predictor, 8).low_res == before.low_res);
}

void the_engine_has_no_memory() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  std::printf("note: not run, since sanitizers map more memory than this test allows\n");
#else
  Plan plan;
  const auto predictor = opened(plan, 0, 1);
  CHECK(set_image(*predictor, 1));
  const auto points_of = [&](std::size_t count, Prediction* result) {
    std::vector<double> points;
    for (std::size_t i = 0; i < 4 * count; ++i) {
      points.push_back(static_cast<double>(i % kWidth));
      points.push_back(static_cast<double>(i % kHeight));
    }
    const std::vector<float> labels(4 * count, 1.0F);
    Prompts prompts;
    prompts.count = 4;
    prompts.points = points.data();
    prompts.labels = labels.data();
    prompts.points_per_prompt = count;
    return predictor->predict(prompts, {}, result);
  };
  Prediction before, after, none;
  CHECK(points_of(1, &before));
  for (const std::size_t extra : {1, 50}) {
    const Status status = with_little_memory(extra << 20, [&] { return points_of(3000, &none); });
    REFUSED(status, Code::out_of_memory, "not enough memory");
    CHECK_EQUAL(none.count, std::size_t{0});
  }
  CHECK_EQUAL(points_of(1, &after).message, "");
  CHECK(after.low_res == before.low_res);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  folder = argv[1];
  backend = argv[2];
  if (argc > 3) library = argv[3];
  return run_tests(
      {{"a failure in the middle keeps the image", a_failure_in_the_middle_keeps_the_image},
       {"a failed prediction changes nothing", a_failed_prediction_changes_nothing},
       {"results that are no numbers are refused", results_that_are_no_numbers_are_refused},
       {"prompts run in batches", prompts_run_in_batches},
       {"one call at a time", one_call_at_a_time},
       {"a call is cancelled", a_call_is_cancelled},
       {"a call has a time limit", a_call_has_a_time_limit},
       {"the engine is interrupted", the_engine_is_interrupted},
       {"the engine has no memory", the_engine_has_no_memory}});
}
