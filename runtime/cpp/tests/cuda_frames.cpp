// Sets frames in the memory of the fake GPU, for TensorRT's backend and for ONNX Runtime's.
// Usage: cuda_frames BUNDLE [ONNXRUNTIME], where ONNXRUNTIME is fake_onnxruntime's library
#include "cuda_frames.h"

#include <future>

#include "glesam_everything.h"
#include "glesam_follow.h"

namespace {

using namespace glesam_tests;

void as_on_the_host() {
  for (const auto& open : predictors()) {
    const auto predictor = open();
    CHECK(set_image(*predictor, 1));
    const Prediction before = predicted(*predictor);
    CHECK(set_image(*predictor, 2));
    const GpuCopy copy(pixels_of(1));
    CHECK_EQUAL(predictor->set_frame(frame_of(copy.data(), Memory::cuda)).message, "");
    const Prediction after = predicted(*predictor);
    CHECK(after.low_res == before.low_res && after.masks == before.masks);
    CHECK(!fake_gpu().touched_free_memory);
  }
}

// The frame is written after set_frame has begun, by work that its stream does late.
void waits_for_the_stream() {
  for (const auto& open : predictors()) {
    const auto predictor = open();
    CHECK(set_image(*predictor, 1));
    const Prediction expected = predicted(*predictor);
    const auto pixels = pixels_of(1);
    FakeStream own;
    for (FakeStream* stream : {&own, &fake_default_stream()}) {
      GpuCopy copy(pixels_of(2));
      stream->add([&] { return copy.write(pixels), cudaSuccess; });
      Frame frame = frame_of(copy.data(), Memory::cuda);
      frame.stream = stream == &own ? &own : nullptr;
      CHECK_EQUAL(predictor->set_frame(frame).message, "");
      CHECK(predicted(*predictor).low_res == expected.low_res);
    }
  }
}

void kernels_are_compiled_once() {
  for (const auto& open : predictors()) {
    const auto predictor = open();
    std::unique_ptr<Predictor> other;
    CHECK(predictor->share(&other));
    CHECK(set_image(*predictor, 1));
    CHECK_EQUAL(fake_gpu().compiled, std::size_t{0});
    const GpuCopy copy(pixels_of(1));
    for (int i = 0; i < 3; ++i) {
      CHECK(predictor->set_frame(frame_of(copy.data(), Memory::cuda)));
      CHECK(other->set_frame(frame_of(copy.data(), Memory::cuda)));
    }
    CHECK_EQUAL(fake_gpu().compiled, std::size_t{1});
  }
}

// Frames of one size copy nothing to the GPU but the prompts, and take no more memory.
void nothing_is_copied_or_allocated_again() {
  const auto predictor = opened();
  const GpuCopy copy(pixels_of(1));
  std::size_t allocated = 0;
  for (int i = 0; i < 5; ++i) {
    const std::size_t before = fake_gpu().copied_from_host;
    CHECK(predictor->set_frame(frame_of(copy.data(), Memory::cuda)));
    if (i > 0) CHECK_EQUAL(fake_gpu().copied_from_host, before);
    predicted(*predictor);
    if (i == 1) allocated = fake_gpu().allocated;
  }
  CHECK_EQUAL(fake_gpu().allocated, allocated);
}

void every_size_is_a_new_one() {
  const auto predictor = opened();
  std::vector<std::uint8_t> pixels(200 * 7 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i)
    pixels[i] = static_cast<std::uint8_t>(i * i % 251);
  const GpuCopy copy(pixels);
  for (int i = 0; i < 40; ++i) {
    for (const bool tall : {false, true}) {
      Frame frame = frame_of(copy.data(), Memory::cuda);
      frame.width = tall ? 7 : 40 + 3 * i;
      frame.height = tall ? 40 + 3 * i : 7;
      CHECK_EQUAL(predictor->set_frame(frame).message, "");
      const double box[] = {0, 0, static_cast<double>(frame.width),
                            static_cast<double>(frame.height)};
      Prompts prompts;
      prompts.boxes = box;
      Prediction on_gpu, on_host;
      CHECK(predictor->predict(prompts, {}, &on_gpu));
      frame.planes[0] = pixels.data();
      frame.memory = Memory::host;
      CHECK(predictor->set_frame(frame));
      CHECK(predictor->predict(prompts, {}, &on_host));
      CHECK(on_gpu.low_res == on_host.low_res);
    }
  }
  CHECK(!fake_gpu().touched_free_memory);
}

void batches() {
  for (const std::int64_t batch : {1, 2, 3}) {
    const auto predictor = opened(0, batch);
    std::vector<Prediction> alone;
    for (std::uint32_t i = 0; i < 4; ++i) {
      CHECK_EQUAL(set_image(*predictor, i).message, "");
      alone.push_back(predicted(*predictor));
    }
    for (const Memory memory : {Memory::host, Memory::cuda}) {
      std::vector<std::vector<std::uint8_t>> pixels;
      std::vector<std::unique_ptr<GpuCopy>> copies;
      std::vector<Frame> frames;
      for (std::uint32_t i = 0; i < 4; ++i) {
        pixels.push_back(pixels_of(i));
        copies.push_back(std::make_unique<GpuCopy>(pixels.back()));
        const bool on_gpu = memory == Memory::cuda;
        frames.push_back(frame_of(on_gpu ? copies.back()->data() : pixels.back().data(), memory));
      }
      CHECK(set_image(*predictor, 9));
      const Prediction before = predicted(*predictor);
      std::vector<Features> features;
      const std::size_t runs = fake_gpu().runs;
      CHECK_EQUAL(predictor->encode(frames.data(), frames.size(), &features).message, "");
      const std::size_t groups =
          (4 + static_cast<std::size_t>(batch) - 1) / static_cast<std::size_t>(batch);
      CHECK_EQUAL(fake_gpu().runs - runs, 2 * groups);
      CHECK(predicted(*predictor).low_res == before.low_res);  // the image that was set
      CHECK_EQUAL(features.size(), std::size_t{4});
      for (const std::size_t i : {3, 0, 2, 1}) {
        CHECK(predictor->set_features(features[i]));
        CHECK(predicted(*predictor).low_res == alone[i].low_res);
      }
    }
    CHECK(!fake_gpu().touched_free_memory);
  }
}

void all_memory_is_freed() {
  {
    const auto predictor = opened(0, 2);
    const GpuCopy copy(pixels_of(2));
    CHECK(predictor->set_frame(frame_of(copy.data(), Memory::cuda)));
  }
  CHECK_EQUAL(fake_gpu().allocated, std::size_t{0});
}

// The other calls that take frames.
void all_calls_take_them() {
  for (const auto& open : predictors()) {
    const auto predictor = open();
    const auto pixels = pixels_of(1);
    const GpuCopy copy(pixels);
    const Frame host = frame_of(pixels.data(), Memory::host);
    const Frame gpu = frame_of(copy.data(), Memory::cuda);
    EverythingParams params;
    params.points_per_side = 4;
    params.pred_iou_thresh = params.stability_score_thresh = 0;
    params.crop_n_layers = 1;
    std::vector<Record> on_host, on_gpu;
    CHECK_EQUAL(predictor->segment_everything(host, params, &on_host).message, "");
    CHECK_EQUAL(predictor->segment_everything(gpu, params, &on_gpu).message, "");
    CHECK(!on_host.empty());
    CHECK_EQUAL(on_gpu.size(), on_host.size());
    for (std::size_t i = 0; i < on_host.size(); ++i) CHECK_EQUAL(on_gpu[i].rle, on_host[i].rle);

    const auto boxes = boxes_of(1);
    Prompts prompts;
    prompts.boxes = boxes.data();
    std::vector<std::string> followed[2];
    for (const bool on_gpu_now : {false, true}) {
      const Frame& frame = on_gpu_now ? gpu : host;
      Follower follower(*predictor, {});
      std::vector<Followed> objects;
      CHECK_EQUAL(follower.start(frame, prompts, &objects).message, "");
      followed[on_gpu_now].push_back(objects[0].rle);
      CHECK_EQUAL(follower.next(frame, &objects).message, "");
      followed[on_gpu_now].push_back(objects[0].rle);
    }
    CHECK(followed[0] == followed[1]);

    CHECK(predictor->set_frame(host));
    const Prediction expected = predicted(*predictor);
    std::promise<Prediction> done;
    CHECK(predictor->segment_async(&gpu, prompts, {}, [&](Status status, Prediction result) {
      if (!status) result = {};
      done.set_value(std::move(result));
    }));
    CHECK(done.get_future().get().low_res == expected.low_res);
    CHECK(!fake_gpu().touched_free_memory);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return run_cuda_tests(
      argc, argv,
      {{"as on the host", as_on_the_host},
       {"waits for the stream", waits_for_the_stream},
       {"kernels are compiled once", kernels_are_compiled_once},
       {"nothing is copied or allocated again", nothing_is_copied_or_allocated_again},
       {"every size is a new one", every_size_is_a_new_one},
       {"batches", batches},
       {"all memory is freed", all_memory_is_freed},
       {"all calls take them", all_calls_take_them}});
}
