// Images and prompts for tests.
#pragma once

#include <string>
#include <vector>

#include "check.h"
#include "glesam.h"

namespace glesam_tests {

constexpr int kWidth = 64, kHeight = 48;

// Returns an RGB image of kWidth x kHeight pixels, which is another one for another seed.
inline std::vector<std::uint8_t> pixels_of(std::uint32_t seed) {
  std::vector<std::uint8_t> pixels(std::size_t{kWidth} * kHeight * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = static_cast<std::uint8_t>((i / 60 * (seed * 37 + 11) + i * seed) % 251);
  }
  return pixels;
}

inline glesam::Status set_image(glesam::Predictor& predictor, std::uint32_t seed) {
  const auto pixels = pixels_of(seed);
  return predictor.set_image({pixels.data(), kWidth, kHeight});
}

// Returns `count` boxes inside the image.
inline std::vector<double> boxes_of(std::size_t count) {
  std::vector<double> boxes;
  for (std::size_t i = 0; i < count; ++i) {
    const auto shift = static_cast<double>(i % 20);
    boxes.insert(boxes.end(), {shift, shift, shift + 30, shift + 25});
  }
  return boxes;
}

inline glesam::Status predict(glesam::Predictor& predictor, std::size_t count,
                              glesam::Prediction* result) {
  const auto boxes = boxes_of(count);
  glesam::Prompts prompts;
  prompts.count = count;
  prompts.boxes = boxes.data();
  return predictor.predict(prompts, {}, result);
}

// Returns the prediction for boxes, which must succeed.
inline glesam::Prediction predicted(glesam::Predictor& predictor, std::size_t count = 1) {
  glesam::Prediction result;
  const glesam::Status status = predict(predictor, count, &result);
  CHECK_EQUAL(status.message, "");
  CHECK_EQUAL(result.count, count);
  return result;
}

inline void refused(const glesam::Status& status, glesam::Code code, const char* words, int line) {
  check_contains(status.message, words, line);
  check_equal(static_cast<int>(status.code), static_cast<int>(code), "code", line);
  check_equal(status.message.find('\n'), std::string::npos, "a line break", line);
}
#define REFUSED(status, code, words) glesam_tests::refused(status, code, words, __LINE__)

}  // namespace glesam_tests
