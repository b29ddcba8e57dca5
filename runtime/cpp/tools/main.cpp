// glesam-cpp: segments an image with a bundle, or runs a bundle's self-test.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>

#include "glesam.h"
#include "image_files.h"
#include "options.h"

namespace {

constexpr int kBadInput = 2;

void require(const glesam::Status& status) {
  if (!status) throw std::runtime_error(status.message);
}

void print_engine(const glesam::Info& info) {
  std::printf("%s %s, %s, %s\n", info.engine.c_str(), info.engine_version.c_str(),
              info.provider.c_str(), info.device.c_str());
}

void print_values(const char* name, const std::vector<float>& values) {
  std::printf("  %-9s", name);
  for (const float value : values) std::printf(" %12.6g", static_cast<double>(value));
  std::printf("\n");
}

int selftest(const Options& options) {
  glesam::Selftest result;
  require(glesam::selftest(options.bundle, options.params, &result));
  for (const glesam::OutputError& output : result.outputs) {
    std::printf("%s %s\n", output.stage.c_str(), output.output.c_str());
    print_values("here", output.first);
    print_values("golden", output.expected);
    std::printf("  largest difference %.3g, relative L2 %.3g\n", output.max_abs,
                output.relative_l2);
  }
  std::printf("masks\n  mean IoU %.5f, worst IoU %.5f\n", result.mask_iou_mean,
              result.mask_iou_worst);
  std::printf("%s on ", result.failures.empty() ? "passed" : "FAILED");
  print_engine(result.info);
  for (const std::string& failure : result.failures) {
    std::fprintf(stderr, "error: %s: self-test failed: %s\n", options.bundle.c_str(),
                 failure.c_str());
  }
  return result.failures.empty() ? 0 : 1;
}

glesam::Prompts prompts_of(const Options& options) {
  glesam::Prompts prompts;
  prompts.points_per_prompt = options.labels.size();
  if (!options.labels.empty()) {
    prompts.points = options.points.data();
    prompts.labels = options.labels.data();
  }
  if (!options.boxes.empty()) {
    prompts.boxes = options.boxes.data();
    prompts.count = options.boxes.size() / 4;
  }
  return prompts;
}

// Returns "_mask.png" for a single mask, else "_mask_0.png" and so on. The numbers of more than ten
// masks have zeros in front, so that names sort in their order.
std::string ending_of(std::size_t index, std::size_t count) {
  if (count == 1) return "_mask.png";
  const std::string last = std::to_string(count - 1);
  std::string number = std::to_string(index);
  number.insert(0, last.size() - number.size(), '0');
  return "_mask_" + number + ".png";
}

int segment(const Options& options) {
  const RgbImage image = read_image(options.image);
  std::unique_ptr<glesam::Predictor> predictor;
  require(glesam::Predictor::open(options.bundle, options.params, &predictor));
  if (!predictor->info().trained) {
    std::fprintf(stderr, "note: this bundle has random weights, so its masks mean nothing\n");
  }
  require(predictor->set_image({image.rgb.data(), image.width, image.height}));
  glesam::Decision decision;
  require(predictor->decision(&decision));
  if (decision.estimated) {
    std::fprintf(stderr, "note: %s, because the gate estimates a gain of %.6f\n",
                 decision.enhanced ? "enhanced" : "not enhanced", decision.estimate);
  }
  glesam::PredictParams how;
  how.multimask = options.multimask;
  glesam::Prediction result;
  require(predictor->predict(prompts_of(options), how, &result));

  std::filesystem::create_directories(options.output);
  const std::string stem =
      (std::filesystem::path(options.output) / std::filesystem::path(options.image).stem())
          .string();
  const std::size_t count = result.count * result.masks_per_prompt;
  const std::size_t pixels = result.width * result.height;
  for (std::size_t i = 0; i < count; ++i) {
    const std::string path = stem + ending_of(i, count);
    write_mask(path, result.masks.data() + i * pixels, image.width, image.height);
    std::printf("%s  IoU %.3f  stability %.3f\n", path.c_str(),
                static_cast<double>(result.scores[i]), result.stability[i]);
  }
  return 0;
}

int run(const Options& options) {
  if (options.help) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  if (options.version) {
    std::printf("glesam-cpp %s\n", glesam::version());
    for (const std::string& backend : glesam::backends()) std::printf("%s\n", backend.c_str());
    return 0;
  }
  return options.selftest ? selftest(options) : segment(options);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse_options({argv + 1, argv + argc}));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kBadInput;
  }
}
