// A bundle of engine files for the fake GPU (fake_nvidia), made from an ONNX bundle.
#pragma once

#include <sys/utsname.h>
#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <fstream>

#include "check.h"
#include "engine.h"
#include "fake_nvidia.h"
#include "predictor_factory.h"
#include "text.h"

namespace glesam_tests {

using namespace glesam;
namespace fs = std::filesystem;

inline std::string onnx_bundle;
inline const fs::path kFolder = fs::temp_directory_path() / cat("glesam-fake-engines-", ::getpid());

inline std::string plan_of(const StageRecord& record) {
  std::string plan;
  const auto add = [&plan](const char* kind, const std::vector<TensorSpec>& specs) {
    for (const TensorSpec& spec : specs) {
      plan += cat(kind, " ", spec.name);
      for (const Dimension& axis : spec.shape) {
        plan += cat(" ", axis.symbol != 0 ? std::string(1, axis.symbol) : "");
        if (axis.symbol == 0 || axis.symbol == 'N') plan += std::to_string(axis.size);
      }
      plan += "\n";
    }
  };
  add("input", record.inputs);
  add("output", record.outputs);
  return plan;
}

// Returns the bundle with engine files for the fake GPU.
inline Bundle engine_bundle(std::int64_t batch = 1) {
  Bundle bundle = open_bundle(onnx_bundle);
  bundle.path = kFolder;
  // SAM 2 has features that the enhancer does not replace, so a failed image could change them.
  const std::int64_t side = bundle.manifest.preprocessing.image_size / 4;
  const TensorSpec features{"high_res_feats_0", {{1, 0}, {32, 0}, {side, 0}, {side, 0}}};
  bundle.manifest.stages.at(Stage::encoder).outputs.push_back(features);
  bundle.manifest.stages.at(Stage::decoder).inputs.push_back(features);
  for (auto& [stage, record] : bundle.manifest.stages) {
    if (stage != Stage::decoder) {
      for (auto* specs : {&record.inputs, &record.outputs}) {
        for (TensorSpec& spec : *specs) spec.shape[0] = {batch, 'N'};  // which the plan needs
      }
    }
    record.graph.file = cat(name_of(stage), ".engine");
    std::ofstream(kFolder / record.graph.file) << plan_of(record);
    for (auto* specs : {&record.inputs, &record.outputs}) {
      for (TensorSpec& spec : *specs) {
        if (spec.shape[0].symbol == 'N') spec.shape[0] = {batch, 0};
      }
    }
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
  bundle.manifest.target = {"tensorrt", batch, build};
  return bundle;
}

inline std::unique_ptr<Predictor> opened(std::size_t max_prompt_batch = 0, std::int64_t batch = 1) {
  fake_gpu() = FakeGpu{};
  Bundle bundle = engine_bundle(batch);
  EngineOptions options;
  options.library = "libcudart.so.99";  // the fake library has the functions of both
  auto engine = load_tensorrt(bundle, options, {Stage::encoder, Stage::enhancer, Stage::decoder});
  Params params = default_params();
  params.max_prompt_batch = max_prompt_batch;
  return PredictorFactory::make(std::move(bundle), std::move(engine), params);
}

}  // namespace glesam_tests
