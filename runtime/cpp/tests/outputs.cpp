// Tests what pipelines want: masks in the caller's buffer, only parts of a result, and features of
// several images. Usage: outputs BUNDLE
#include <algorithm>
#include <limits>

#include "check.h"
#include "glesam.h"
#include "images.h"

namespace {

using namespace glesam;
using namespace glesam_tests;

std::string bundle;
std::unique_ptr<Predictor> shared;  // all tests use it, because opening a bundle takes a second

std::unique_ptr<Predictor> opened() {
  std::unique_ptr<Predictor> predictor;
  CHECK_EQUAL(Predictor::open(bundle, default_params(), &predictor).message, "");
  return predictor;
}

Status predict_as(const PredictParams& params, Prediction* result, std::size_t count = 3) {
  const auto boxes = boxes_of(count);
  Prompts prompts;
  prompts.count = count;
  prompts.boxes = boxes.data();
  return shared->predict(prompts, params, result);
}

Prediction made_as(const PredictParams& params) {
  Prediction result;
  CHECK_EQUAL(predict_as(params, &result).message, "");
  return result;
}

bool same(const std::vector<Region>& a, const std::vector<Region>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Region& x, const Region& y) {
    return x.x == y.x && x.y == y.y && x.width == y.width && x.height == y.height;
  });
}

constexpr std::size_t kRow = kWidth, kRows = 3 * 3 * kHeight;  // of 3 prompts, 3 masks each

// Masks in rows of any stride, between which nothing is written.
void the_callers_buffer() {
  CHECK(set_image(*shared, 1));
  PredictParams params;
  params.multimask = true;
  const Prediction wanted = made_as(params);
  CHECK_EQUAL(wanted.masks.size(), kRows * kRow);
  CHECK(std::count(wanted.masks.begin(), wanted.masks.end(), 1) > 0);
  for (const std::size_t gap : {0, 1, 37}) {
    const std::size_t stride = kRow + gap;
    std::vector<std::uint8_t> buffer((kRows - 1) * stride + kRow, 7);
    params.mask_buffer = buffer.data();
    params.mask_buffer_size = buffer.size();
    params.mask_stride = gap == 0 ? 0 : stride;
    const Prediction found = made_as(params);
    CHECK(found.masks.empty());
    CHECK(found.areas == wanted.areas && found.stability == wanted.stability);
    for (std::size_t y = 0; y < kRows; ++y) {
      const auto row = buffer.begin() + static_cast<std::ptrdiff_t>(y * stride);
      const auto expected = wanted.masks.begin() + static_cast<std::ptrdiff_t>(y * kRow);
      CHECK(std::equal(row, row + kRow, expected));
      if (y + 1 == kRows) break;
      CHECK(std::all_of(row + kRow, row + static_cast<std::ptrdiff_t>(stride),
                        [](std::uint8_t byte) { return byte == 7; }));
    }
  }
}

void a_buffer_too_small() {
  CHECK(set_image(*shared, 1));
  std::vector<std::uint8_t> buffer(kRows * kRow, 7);
  PredictParams params;
  params.multimask = true;
  params.mask_buffer = buffer.data();
  Prediction result;
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
  const std::pair<std::size_t, std::size_t> wrong[] = {{0, 0},
                                                       {1, 0},
                                                       {kRow - 1, 0},
                                                       {kRows * kRow - 1, 0},
                                                       {most, most},
                                                       {kRows * kRow, kRow + 1},
                                                       {most / 2, most / kRows + 1}};
  for (const auto& [size, stride] : wrong) {
    params.mask_buffer_size = size;
    params.mask_stride = stride;
    REFUSED(predict_as(params, &result), Code::invalid_input, "too few for 9 masks of 48 rows");
  }
  params.mask_buffer_size = buffer.size();
  params.mask_stride = kRow - 1;
  REFUSED(predict_as(params, &result), Code::invalid_input,
          "mask_stride: 63 bytes, but a row of the mask has 64");
  CHECK_EQUAL(result.count, std::size_t{0});
  CHECK(std::all_of(buffer.begin(), buffer.end(), [](std::uint8_t byte) { return byte == 7; }));
}

// Each form alone, without masks of one byte per pixel.
void only_what_is_asked_for() {
  CHECK(set_image(*shared, 2));
  PredictParams all;
  all.packed = all.rle = true;
  const Prediction wanted = made_as(all);
  const auto only = [&](bool PredictParams::* form) {
    PredictParams params;
    params.masks = false;
    if (form != nullptr) params.*form = true;
    const Prediction found = made_as(params);
    CHECK(found.masks.empty() && found.logits.empty());
    CHECK(found.low_res == wanted.low_res && found.scores == wanted.scores);
    CHECK(form == nullptr ? found.areas.empty() && found.boxes.empty() && found.stability.empty()
                          : found.areas == wanted.areas && same(found.boxes, wanted.boxes) &&
                                found.stability == wanted.stability);
    return found;
  };
  CHECK(only(nullptr).rle.empty());
  CHECK(only(&PredictParams::boxes).packed.empty());
  CHECK(only(&PredictParams::packed).packed == wanted.packed);
  CHECK(only(&PredictParams::rle).rle == wanted.rle);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto mask = wanted.masks.begin() + static_cast<std::ptrdiff_t>(i * kWidth * kHeight);
    CHECK_EQUAL(wanted.areas[i], std::count(mask, mask + kWidth * kHeight, 1));
  }
}

// Two images are encoded first and prompted later, in any order.
void features_of_several_images() {
  Features first, second, none;
  CHECK(!first);
  shared->reset_image();
  REFUSED(shared->get_features(&first), Code::invalid_input, "no image is set");
  REFUSED(shared->get_features(nullptr), Code::invalid_input, "null pointer");
  REFUSED(shared->set_features(none), Code::invalid_input, "fill them with get_features");
  CHECK(set_image(*shared, 1));
  CHECK(shared->get_features(&first) && first);
  const Prediction of_first = predicted(*shared, 2);
  CHECK(set_image(*shared, 2));
  CHECK(shared->get_features(&second));
  const Prediction of_second = predicted(*shared, 2);
  CHECK(of_first.low_res != of_second.low_res);
  for (int round = 0; round < 2; ++round) {
    CHECK(shared->set_features(first));
    CHECK(predicted(*shared, 2).masks == of_first.masks);
    CHECK(shared->set_features(second));
    shared->reset_image();  // the handle keeps them
    CHECK(shared->set_features(second));
    CHECK(predicted(*shared, 2).low_res == of_second.low_res);
    CHECK(set_image(*shared, 3));  // replaces the image, not the features
  }
  const auto other = opened();
  REFUSED(other->set_features(first), Code::invalid_input, "of another context");
  CHECK(set_image(*shared, 1));
  CHECK(!shared->set_features(none));
  CHECK(predicted(*shared, 2).low_res == of_first.low_res);  // the image before stays set
}

void features_outlive_the_predictor() {
  Features features;
  {
    const auto predictor = opened();
    CHECK(set_image(*predictor, 1));
    CHECK(predictor->get_features(&features));
  }
  const Features copy = features;
  features = {};
  CHECK(copy && !features);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  bundle = argv[1];
  shared = opened();
  const int code = run_tests({{"the caller's buffer", the_callers_buffer},
                              {"a buffer too small", a_buffer_too_small},
                              {"only what is asked for", only_what_is_asked_for},
                              {"features of several images", features_of_several_images},
                              {"features outlive the predictor", features_outlive_the_predictor}});
  shared.reset();
  return code;
}
