// Frames in the memory of the fake GPU, and predictors that take them.
#pragma once

#include <functional>
#include <memory>

#include "fake_engines.h"
#include "fake_gpu_memory.h"
#include "fake_memory.h"
#include "images.h"

namespace glesam_tests {

inline std::string onnxruntime;  // fake_onnxruntime's library; empty without it

inline Frame frame_of(const std::uint8_t* pixels, Memory memory) {
  Frame frame;
  frame.width = kWidth;
  frame.height = kHeight;
  frame.planes[0] = pixels;
  frame.memory = memory;
  return frame;
}

inline std::unique_ptr<Predictor> opened_onnxruntime(const std::string& device) {
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
inline std::vector<std::function<std::unique_ptr<Predictor>()>> predictors() {
  std::vector<std::function<std::unique_ptr<Predictor>()>> all{[] { return opened(); }};
  if (!onnxruntime.empty()) all.push_back([] { return opened_onnxruntime("cuda"); });
  return all;
}

// Runs tests for main. Usage: PROGRAM BUNDLE [ONNXRUNTIME]
inline int run_cuda_tests(int argc, char** argv, const std::vector<Test>& tests) {
  if (argc < 2) return 2;
  onnx_bundle = argv[1];
  if (argc > 2) onnxruntime = argv[2];
  fs::create_directories(kFolder);
  const int code = run_tests(tests);
  fs::remove_all(kFolder);
  return code;
}

}  // namespace glesam_tests
