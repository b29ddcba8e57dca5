// segment BUNDLE IMAGE X Y: segments the object at (X, Y), prints its scores and writes mask.pgm.
#include <cstdio>
#include <cstdlib>
#include <memory>

#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

#include "glesam.h"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const auto done = [](const glesam::Status& status) {
    if (!status) std::fprintf(stderr, "%s\n", status.message.c_str());
    return static_cast<bool>(status);
  };

  std::unique_ptr<glesam::Predictor> predictor;
  if (!done(glesam::Predictor::open(argv[1], glesam::default_params(), &predictor))) return 2;

  int width = 0, height = 0, channels = 0;
  stbi_uc* rgb = stbi_load(argv[2], &width, &height, &channels, 3);
  const bool is_set = done(predictor->set_image({rgb, width, height}));
  stbi_image_free(rgb);
  if (!is_set) return 2;

  const double point[] = {std::atof(argv[3]), std::atof(argv[4])};
  const float label[] = {1};  // 1: object, 0: background
  glesam::Prompts prompts;
  prompts.points = point;
  prompts.labels = label;
  prompts.points_per_prompt = 1;
  glesam::Prediction result;
  if (!done(predictor->predict(prompts, {}, &result))) return 2;

  std::printf("IoU %.3f, stability %.3f\n", result.scores[0], result.stability[0]);
  std::FILE* file = std::fopen("mask.pgm", "wb");
  if (file == nullptr) return 2;
  std::fprintf(file, "P5 %d %d 1\n", width, height);  // samples of 0 and 1
  std::fwrite(result.masks.data(), 1, result.masks.size(), file);
  return std::fclose(file) == 0 ? 0 : 2;
}
