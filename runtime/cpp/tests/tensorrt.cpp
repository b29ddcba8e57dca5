// Runs the TensorRT backend on a fake GPU (fake_nvidia.cpp), and lets the GPU fail.
// Usage: tensorrt BUNDLE, where BUNDLE is an ONNX bundle. Its graphs are replaced by fake engines.
#include <algorithm>
#include <cmath>

#include "fake_engines.h"
#include "images.h"

namespace {

using namespace glesam_tests;

bool finite(const Prediction& result) {
  return std::all_of(result.low_res.begin(), result.low_res.end(),
                     [](float value) { return std::isfinite(value); });
}

// Sets image 1, lets image 2 fail, and expects the masks of image 1.
void check_that_the_image_stays(std::size_t FakeGpu::*until_failure, std::size_t after,
                                const char* words) {
  const auto predictor = opened();
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor);
  CHECK(finite(before));
  fake_gpu().*until_failure = after;
  REFUSED(set_image(*predictor, 2), Code::backend, words);
  fake_gpu().*until_failure = FakeGpu::kNever;
  CHECK(predicted(*predictor).low_res == before.low_res);
  CHECK(set_image(*predictor, 2));
  const Prediction after_all = predicted(*predictor);
  CHECK(finite(after_all) && after_all.low_res != before.low_res);
  CHECK(!fake_gpu().touched_free_memory);
}

void the_encoder_fails() {
  check_that_the_image_stays(&FakeGpu::until_enqueue_fails, 0, "failed in the encoder: the fake");
}
void the_enhancer_fails() {
  check_that_the_image_stays(&FakeGpu::until_enqueue_fails, 1, "failed in the enhancer: the fake");
}
void the_encoder_fails_while_it_runs() {
  check_that_the_image_stays(&FakeGpu::until_run_fails, 0, "CUDA failed in running the graphs");
}
void the_enhancer_fails_while_it_runs() {
  check_that_the_image_stays(&FakeGpu::until_run_fails, 1, "CUDA failed in running the graphs");
}

void no_memory_for_a_second_image() {
  const auto predictor = opened();
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor);
  fake_gpu().capacity = fake_gpu().allocated;
  REFUSED(set_image(*predictor, 2), Code::out_of_memory, "not enough memory");
  CHECK(predicted(*predictor).low_res == before.low_res);
  CHECK(predictor->reset_image());  // frees the buffers that the next image needs
  CHECK(set_image(*predictor, 2));
  CHECK(predicted(*predictor).low_res != before.low_res);
}

void memory_does_not_grow() {
  const auto predictor = opened();
  std::size_t allocated = 0;
  for (std::uint32_t i = 0; i < 6; ++i) {
    CHECK(set_image(*predictor, i));
    predicted(*predictor);
    if (i == 1) allocated = fake_gpu().allocated;
  }
  CHECK_EQUAL(fake_gpu().allocated, allocated);
}

void all_memory_is_freed() {
  {
    const auto predictor = opened();
    CHECK(set_image(*predictor, 1));
  }
  CHECK_EQUAL(fake_gpu().allocated, std::size_t{0});
}

void timings_are_of_the_run() {
  const auto predictor = opened();
  fake_gpu().seconds_per_run = 0.02;
  CHECK(set_image(*predictor, 1));
  predicted(*predictor);
  CHECK(predictor->timings().encoder >= 0.02);
  CHECK(predictor->timings().enhancer >= 0.02);
  CHECK(predictor->timings().decoder >= 0.02);
}

void sessions_share_the_weights() {
  const auto predictor = opened();
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor);
  const std::size_t loaded = fake_gpu().engines;
  std::unique_ptr<Predictor> other;
  CHECK_EQUAL(predictor->share(&other).message, "");
  CHECK_EQUAL(fake_gpu().engines, loaded);
  CHECK(set_image(*other, 2));
  CHECK(predicted(*other).low_res != before.low_res);
  CHECK(predicted(*predictor).low_res == before.low_res);
  Features features;
  CHECK(predictor->get_features(&features));
  CHECK(set_image(*predictor, 3));
  CHECK(other->set_features(features));
  CHECK(predicted(*other).low_res == before.low_res);
  CHECK(!fake_gpu().touched_free_memory);
}

void prompts_are_split_by_the_profile() {
  const auto predictor = opened(1000);  // the profile accepts 4
  CHECK(set_image(*predictor, 1));
  const std::size_t before = fake_gpu().runs;
  const Prediction all = predicted(*predictor, 10);
  CHECK_EQUAL(fake_gpu().runs - before, std::size_t{3});
  const Prediction first = predicted(*predictor, 1);
  CHECK(std::equal(first.low_res.begin(), first.low_res.end(), all.low_res.begin()));
  CHECK(finite(all));
}

// Its points are a tensor without elements.
void a_mask_alone_is_a_prompt() {
  const auto predictor = opened();
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor);
  Prompts prompts;
  prompts.mask_input = before.low_res.data();
  Prediction result;
  CHECK_EQUAL(predictor->predict(prompts, {}, &result).message, "");
  CHECK(finite(result) && !fake_gpu().touched_free_memory);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  onnx_bundle = argv[1];
  fs::create_directories(kFolder);
  const int code =
      run_tests({{"the encoder fails", the_encoder_fails},
                 {"the enhancer fails", the_enhancer_fails},
                 {"the encoder fails while it runs", the_encoder_fails_while_it_runs},
                 {"the enhancer fails while it runs", the_enhancer_fails_while_it_runs},
                 {"no memory for a second image", no_memory_for_a_second_image},
                 {"memory does not grow", memory_does_not_grow},
                 {"all memory is freed", all_memory_is_freed},
                 {"timings are of the run", timings_are_of_the_run},
                 {"sessions share the weights", sessions_share_the_weights},
                 {"a mask alone is a prompt", a_mask_alone_is_a_prompt},
                 {"prompts are split by the profile", prompts_are_split_by_the_profile}});
  fs::remove_all(kFolder);
  return code;
}
