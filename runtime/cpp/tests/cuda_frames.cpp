// Sets frames in the memory of the fake GPU, for TensorRT's backend and for ONNX Runtime's.
// Usage: cuda_frames BUNDLE [ONNXRUNTIME], where ONNXRUNTIME is fake_onnxruntime's library
#include <algorithm>
#include <cmath>
#include <memory>

#include "fake_engines.h"
#include "fake_gpu_memory.h"
#include "fake_memory.h"
#include "images.h"

namespace {

using namespace glesam_tests;

std::string onnxruntime;

Frame frame_of(const std::uint8_t* pixels, Memory memory) {
  Frame frame;
  frame.width = kWidth;
  frame.height = kHeight;
  frame.planes[0] = pixels;
  frame.memory = memory;
  return frame;
}

std::unique_ptr<Predictor> opened_onnxruntime(const std::string& device) {
  fake_gpu() = FakeGpu{};
  std::unique_ptr<Predictor> predictor;
  Params params = default_params();
  params.backend = "onnxruntime";
  params.device = device;
  params.engine_library = onnxruntime;
  CHECK_EQUAL(Predictor::open(onnx_bundle, params, &predictor).message, "");
  return predictor;
}

// The backends under test, each with a GPU.
std::vector<std::function<std::unique_ptr<Predictor>()>> predictors() {
  std::vector<std::function<std::unique_ptr<Predictor>()>> all{[] { return opened(); }};
  if (!onnxruntime.empty()) all.push_back([] { return opened_onnxruntime("cuda"); });
  return all;
}

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

void what_is_refused() {
  const auto predictor = opened();
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor);
  const auto pixels = pixels_of(2);
  const GpuCopy copy(pixels);
  const auto set = [&](const std::uint8_t* memory, auto&& change) {
    Frame frame = frame_of(memory, Memory::cuda);
    change(frame);
    return predictor->set_frame(frame);
  };
  const auto nothing = [](Frame&) {};
  REFUSED(set(pixels.data(), nothing), Code::invalid_input,
          "plane 0 is not in memory that CUDA device 0 can read");
  REFUSED(set(nullptr, nothing), Code::invalid_input, "a null pointer");
  REFUSED(set(copy.data(), [](Frame& f) { ++f.height; }), Code::invalid_input,
          "plane 0 needs 9408 bytes, but only 9216 are allocated there");
  REFUSED(set(copy.data() + 1, nothing), Code::invalid_input, "but only 9215 are allocated");
  REFUSED(set(copy.data(), [](Frame& f) { f.strides[0] = -3 * kWidth; }), Code::invalid_input,
          "plane 0 is not in memory");
  REFUSED(set(copy.data(), [](Frame& f) { f.memory = static_cast<Memory>(2); }),
          Code::invalid_input, "memory 2 is not known");
  fake_gpu().ordinal = 1;
  REFUSED(set(copy.data(), nothing), Code::invalid_input,
          "in the memory of CUDA device 1, but the graphs run on device 0");
  fake_gpu().ordinal = 0;
  std::vector<float> tensor;
  REFUSED(predictor->preprocess(frame_of(copy.data(), Memory::cuda), &tensor), Code::invalid_input,
          "a frame in CUDA memory");
  std::vector<Features> features;
  const Frame mixed[] = {frame_of(pixels.data(), Memory::host),
                         frame_of(copy.data(), Memory::cuda)};
  REFUSED(predictor->encode(mixed, 2, &features), Code::invalid_input,
          "frame 1: in another kind of memory than frame 0");
  REFUSED(predictor->encode(mixed, 0, &features), Code::invalid_input, "pass at least one");
  REFUSED(predictor->encode(nullptr, 1, &features), Code::invalid_input, "null pointer");
  REFUSED(predictor->encode(mixed, 1, nullptr), Code::invalid_input, "null pointer");
  Frame wrong[] = {mixed[0], mixed[0]};
  wrong[1].width = 0;
  REFUSED(predictor->encode(wrong, 2, &features), Code::invalid_input,
          "frame 1: image: 0 x 48 pixels");
  CHECK(features.empty());
  CHECK(predicted(*predictor).low_res == before.low_res);
}

void memory_of_other_kinds() {
  const auto predictor = opened();
  const GpuCopy copy(pixels_of(2));
  const auto set = [&] {
    return predictor->set_frame(frame_of(copy.data(), Memory::cuda)).message;
  };
  fake_gpu().bytes_of_range = 1000;  // mapped in pieces
  CHECK_EQUAL(set(), "");
  Frame large = frame_of(copy.data(), Memory::cuda);
  ++large.height;
  REFUSED(predictor->set_frame(large), Code::invalid_input, "but only 9216 are allocated there");
  fake_gpu().bytes_of_range = FakeGpu::kNever;
  fake_gpu().memory_is_host =
      true;  // mapped memory of the host, allocated by another device's context
  fake_gpu().ordinal = 1;
  CHECK_EQUAL(set(), "");
}

// A caller may free its frames after a call that failed.
void nothing_reads_frames_after_a_failed_call() {
  const auto predictor = opened(0, 2);
  const GpuCopy copy(pixels_of(2));
  const Frame good = frame_of(copy.data(), Memory::cuda);
  Frame bad = good;
  ++bad.height;
  std::vector<Features> features;
  const Frame frames[] = {good, bad};
  REFUSED(predictor->encode(frames, 2, &features), Code::invalid_input,
          "frame 1: image: plane 0 needs");
  const std::size_t kernels = fake_gpu().kernels;
  CHECK(kernels > 0);
  CHECK(set_image(*predictor, 1));
  CHECK_EQUAL(fake_gpu().kernels, kernels);
}

void failed_uploads_leave_nothing_behind() {
  const auto predictor = opened();
  const auto pixels = pixels_of(2);
  const GpuCopy copy(pixels);
  Frame frame = frame_of(copy.data(), Memory::cuda);
  frame.format = Format::nv12;
  frame.planes[1] = copy.data() + kWidth * kHeight;
  for (std::size_t upload = 0; upload < 4; ++upload) {
    fake_gpu().until_upload_fails = upload;
    REFUSED(predictor->set_frame(frame), Code::out_of_memory, "not enough memory");
  }
  fake_gpu().until_upload_fails = FakeGpu::kNever;
  CHECK_EQUAL(predictor->set_frame(frame).message, "");
  const auto low_res = predicted(*predictor).low_res;
  frame.memory = Memory::host;
  frame.planes[0] = pixels.data();
  frame.planes[1] = pixels.data() + kWidth * kHeight;
  CHECK(predictor->set_frame(frame));
  CHECK(predicted(*predictor).low_res == low_res);
}

void a_stream_of_the_thread() {
  const auto predictor = opened();
  const GpuCopy copy(pixels_of(2));
  Frame frame = frame_of(copy.data(), Memory::cuda);
  frame.stream = reinterpret_cast<void*>(2);
  const auto boxes = boxes_of(1);
  Prompts prompts;
  prompts.boxes = boxes.data();
  REFUSED(predictor->segment_async(&frame, prompts, {}, [](Status, Prediction) {}),
          Code::invalid_input, "cudaStreamPerThread is another stream");
}

void failures_keep_the_image() {
  const auto predictor = opened();
  CHECK(set_image(*predictor, 1));
  const Prediction before = predicted(*predictor);
  const GpuCopy copy(pixels_of(2));
  const auto set = [&] { return predictor->set_frame(frame_of(copy.data(), Memory::cuda)); };
  fake_gpu().compiler_fails = true;
  REFUSED(set(), Code::backend, "cannot compile the kernels: line 1");
  fake_gpu().compiler_fails = false;
  for (const std::size_t more : {0, 100'000, 300'000}) {
    fake_gpu().capacity = fake_gpu().allocated + more;
    REFUSED(set(), Code::out_of_memory, "not enough memory");
    CHECK(predicted(*predictor).low_res == before.low_res);
  }
  fake_gpu().capacity = FakeGpu::kNever;
  fake_gpu().until_run_fails = 0;
  REFUSED(set(), Code::backend, "CUDA failed in running the graphs");
  fake_gpu().until_run_fails = FakeGpu::kNever;
  CHECK(predicted(*predictor).low_res == before.low_res);
  CHECK(set());
  CHECK(predicted(*predictor).low_res != before.low_res);
}

void all_memory_is_freed() {
  {
    const auto predictor = opened(0, 2);
    const GpuCopy copy(pixels_of(2));
    CHECK(predictor->set_frame(frame_of(copy.data(), Memory::cuda)));
  }
  CHECK_EQUAL(fake_gpu().allocated, std::size_t{0});
}

void engines_of_the_host_refuse() {
  if (onnxruntime.empty()) return;
  const auto predictor = opened_onnxruntime("cpu");
  const GpuCopy copy(pixels_of(2));
  REFUSED(predictor->set_frame(frame_of(copy.data(), Memory::cuda)), Code::invalid_input,
          "a frame in CUDA memory, but onnxruntime on cpu reads the host's");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  onnx_bundle = argv[1];
  if (argc > 2) onnxruntime = argv[2];
  fs::create_directories(kFolder);
  const int code = run_tests(
      {{"as on the host", as_on_the_host},
       {"waits for the stream", waits_for_the_stream},
       {"kernels are compiled once", kernels_are_compiled_once},
       {"nothing is copied or allocated again", nothing_is_copied_or_allocated_again},
       {"every size is a new one", every_size_is_a_new_one},
       {"batches", batches},
       {"what is refused", what_is_refused},
       {"memory of other kinds", memory_of_other_kinds},
       {"nothing reads frames after a failed call", nothing_reads_frames_after_a_failed_call},
       {"failed uploads leave nothing behind", failed_uploads_leave_nothing_behind},
       {"a stream of the thread", a_stream_of_the_thread},
       {"failures keep the image", failures_keep_the_image},
       {"all memory is freed", all_memory_is_freed},
       {"engines of the host refuse", engines_of_the_host_refuse}});
  fs::remove_all(kFolder);
  return code;
}
