// Passes wrong frames in CUDA memory, and lets the GPU fail. Each call must end with an error and change
// nothing. Usage: cuda_misuse BUNDLE [ONNXRUNTIME]
#include "cuda_frames.h"

namespace {

using namespace glesam_tests;

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

void engines_of_the_host_refuse() {
  if (onnxruntime.empty()) return;
  const auto predictor = opened_onnxruntime("cpu");
  const GpuCopy copy(pixels_of(2));
  REFUSED(predictor->set_frame(frame_of(copy.data(), Memory::cuda)), Code::invalid_input,
          "a frame in CUDA memory, but onnxruntime on cpu reads the host's");
}

}  // namespace

int main(int argc, char** argv) {
  return run_cuda_tests(
      argc, argv,
      {{"what is refused", what_is_refused},
       {"memory of other kinds", memory_of_other_kinds},
       {"nothing reads frames after a failed call", nothing_reads_frames_after_a_failed_call},
       {"failed uploads leave nothing behind", failed_uploads_leave_nothing_behind},
       {"a stream of the thread", a_stream_of_the_thread},
       {"failures keep the image", failures_keep_the_image},
       {"engines of the host refuse", engines_of_the_host_refuse}});
}
