// Runs the TensorRT backend on a fake GPU (fake_nvidia.cpp), and lets the GPU fail.
// Usage: tensorrt BUNDLE, where BUNDLE is an ONNX bundle. Its graphs are replaced by fake engines.
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "engine.h"
#include "fake_nvidia.h"
#include "images.h"
#include "predictor_factory.h"
#include "text.h"

namespace {

using namespace glesam;
using namespace glesam_tests;
namespace fs = std::filesystem;

std::string onnx_bundle;
const fs::path kFolder = fs::temp_directory_path() / cat("glesam-tensorrt-", ::getpid());

std::string plan_of(const StageRecord& record) {
  std::string plan;
  const auto add = [&plan](const char* kind, const std::vector<TensorSpec>& specs) {
    for (const TensorSpec& spec : specs) {
      plan += cat(kind, " ", spec.name);
      for (const Dimension& axis : spec.shape) {
        const bool batch = axis.symbol != 0 && axis.symbol != 'B' && axis.symbol != 'P';
        plan += batch ? std::string(" 1")
                      : cat(" ", axis.symbol != 0 ? std::string(1, axis.symbol)
                                                  : std::to_string(axis.size));
      }
      plan += "\n";
    }
  };
  add("input", record.inputs);
  add("output", record.outputs);
  return plan;
}

// Returns the bundle with engine files for the fake GPU.
Bundle engine_bundle() {
  Bundle bundle = open_bundle(onnx_bundle);
  bundle.path = kFolder;
  // SAM 2 has features that the enhancer does not replace, so a failed image could change them.
  const std::int64_t side = bundle.manifest.preprocessing.image_size / 4;
  const TensorSpec features{"high_res_feats_0", {{1, 0}, {32, 0}, {side, 0}, {side, 0}}};
  bundle.manifest.stages.at(Stage::encoder).outputs.push_back(features);
  bundle.manifest.stages.at(Stage::decoder).inputs.push_back(features);
  for (auto& [stage, record] : bundle.manifest.stages) {
    for (auto* specs : {&record.inputs, &record.outputs}) {
      for (TensorSpec& spec : *specs) {
        for (Dimension& axis : spec.shape) {
          if (axis.symbol == 'N') axis = {1, 0};
        }
      }
    }
    record.graph.file = cat(name_of(stage), ".engine");
    std::ofstream(kFolder / record.graph.file) << plan_of(record);
  }
  bundle.manifest.stages.at(Stage::decoder).profile = {{'B', {1, 1, 4}}, {'P', {1, 2, 16}}};
  utsname names{};
  CHECK(uname(&names) == 0);
  std::string system = cat(names.sysname, "-", names.machine);
  for (char& c : system) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  EngineBuild build;
  build.version = "99.0";
  build.system = system;
  build.compute_capabilities = {"8.9"};
  bundle.manifest.target = {"tensorrt", 1, build};
  return bundle;
}

std::unique_ptr<Predictor> opened(std::size_t max_prompt_batch = 0) {
  fake_gpu() = FakeGpu{};
  Bundle bundle = engine_bundle();
  EngineOptions options;
  options.library = "libcudart.so.99";  // the fake library has the functions of both
  auto engine = load_tensorrt(bundle, options, {Stage::encoder, Stage::enhancer, Stage::decoder});
  Params params = default_params();
  params.max_prompt_batch = max_prompt_batch;
  return PredictorFactory::make(std::move(bundle), std::move(engine), params);
}

bool finite(const Prediction& result) {
  return std::all_of(result.low_res.begin(), result.low_res.end(),
                     [](float value) { return std::isfinite(value); });
}

// Sets image 1, lets image 2 fail, and expects the masks of image 1.
void check_that_the_image_stays(std::size_t FakeGpu::* until_failure, std::size_t after,
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
                 {"prompts are split by the profile", prompts_are_split_by_the_profile}});
  fs::remove_all(kFolder);
  return code;
}
