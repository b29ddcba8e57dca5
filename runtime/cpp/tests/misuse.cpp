// Passes wrong arguments to the API. Each must give an error message and no crash.
// Usage: misuse BUNDLE
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "check.h"
#include "glesam.h"

namespace {

using glesam::Code;

std::string bundle;

// All tests but that of threads use this predictor, because opening a bundle takes a second.
std::unique_ptr<glesam::Predictor> shared;

std::unique_ptr<glesam::Predictor> opened(const glesam::Limits& limits = {}) {
  std::unique_ptr<glesam::Predictor> predictor;
  glesam::Params params = glesam::default_params();
  params.limits = limits;
  const glesam::Status status = glesam::Predictor::open(bundle, params, &predictor);
  CHECK_EQUAL(status.message, "");
  return predictor;
}

void refused(const glesam::Status& status, Code code, const char* words, int line) {
  glesam_tests::check_equal(static_cast<int>(status.code), static_cast<int>(code), "code", line);
  glesam_tests::check_contains(status.message, words, line);
  glesam_tests::check_equal(status.message.find('\n'), std::string::npos, "a line break", line);
}
#define REFUSED(status, code, words) refused(status, code, words, __LINE__)

const std::vector<std::uint8_t> kPixels(64 * 48 * 3, 100);
const glesam::Image kImage{kPixels.data(), 64, 48};

void opening() {
  std::unique_ptr<glesam::Predictor> predictor;
  glesam::Params params = glesam::default_params();
  REFUSED(glesam::Predictor::open(bundle, params, nullptr), Code::invalid_input, "null pointer");
  REFUSED(glesam::Predictor::open("nowhere", params, &predictor), Code::bad_bundle,
          "no such bundle folder");
  params.backend = "abacus";
  REFUSED(glesam::Predictor::open(bundle, params, &predictor), Code::backend,
          "backend 'abacus' is not known; known are auto, openvino");
  params = glesam::default_params();
  params.device = "toaster";
  REFUSED(glesam::Predictor::open(bundle, params, &predictor), Code::backend, "TOASTER");
  params = glesam::default_params();
  params.precision = "fp4";
  REFUSED(glesam::Predictor::open(bundle, params, &predictor), Code::backend, "precision 'fp4'");
  params = glesam::default_params();
  params.threads = -1;
  REFUSED(glesam::Predictor::open(bundle, params, &predictor), Code::invalid_input, "threads");
  params.threads = 1 << 20;
  REFUSED(glesam::Predictor::open(bundle, params, &predictor), Code::invalid_input,
          "threads 1048576: more than 8 per core");
  CHECK(predictor == nullptr);
}

void images() {
  const auto& predictor = shared;
  predictor->reset_image();
  const auto set = [&](glesam::Image image) { return predictor->set_image(image); };
  constexpr int huge = std::numeric_limits<int>::max();
  REFUSED(set({nullptr, 64, 48}), Code::invalid_input, "null pointer");
  REFUSED(set({kPixels.data(), 0, 48}), Code::invalid_input,
          "0 x 48 pixels, but it needs at least 1 x 1");
  REFUSED(set({kPixels.data(), 64, -1}), Code::invalid_input, "64 x -1 pixels");
  REFUSED(set({kPixels.data(), huge, huge}), Code::invalid_input,
          "2147483647 x 2147483647 pixels, more than the limit of 16777216 pixels per side; raise "
          "limits.side in the parameters");
  REFUSED(set({kPixels.data(), 1, (1 << 24) + 1}), Code::invalid_input, "limits.side");
  REFUSED(set({kPixels.data(), 1 << 15, (1 << 14) + 1}), Code::invalid_input,
          "more than the limit of 512 megapixels (of 1024 x 1024 pixels); raise limits.megapixels");
  REFUSED(set({kPixels.data(), 64, 48, 191}), Code::invalid_input, "a stride of 191 bytes");
  REFUSED(predictor->preprocess(kImage, nullptr), Code::invalid_input, "null pointer");
}

// Strides that would read beyond the pixels. A negative stride is a large number as size_t.
void strides() {
  const auto& predictor = shared;
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
  const std::size_t wrong[] = {std::size_t{1} << 62,
                               std::size_t{1} << 63,
                               std::size_t{1} << 32,
                               std::size_t{1} << 31,
                               most,
                               most - 64 * 3 + 1,
                               most / 2,
                               most / 47,
                               most / 48 + 1};
  std::vector<float> tensor;
  for (const std::size_t stride : wrong) {
    REFUSED(predictor->set_image({kPixels.data(), 64, 48, stride}), Code::invalid_input,
            "pass the top row first, or a Frame, whose stride may be negative");
    REFUSED(predictor->set_image({kPixels.data(), 64, 2, stride}), Code::invalid_input, "stride");
    REFUSED(predictor->preprocess({kPixels.data(), 64, 2, stride}, &tensor), Code::invalid_input,
            "stride");
  }
  CHECK(predictor->set_image({kPixels.data(), 64, 2, 4608}));
  CHECK(predictor->set_image({kPixels.data(), 64, 1, 2147483647}));  // no row after the first
}

// Frames that would be read outside their planes, or that say something unknown.
void frames() {
  const auto& predictor = shared;
  CHECK(predictor->set_image(kImage));
  using F = glesam::Frame;
  const auto with = [&](auto&& change) {
    F frame;
    frame.format = glesam::Format::i420;
    frame.width = 63;
    frame.height = 47;
    for (const std::uint8_t*& plane : frame.planes) plane = kPixels.data();
    change(frame);
    std::vector<float> tensor;
    const glesam::Status status = predictor->preprocess(frame, &tensor);
    CHECK(tensor.empty() || status);
    return status;
  };
  CHECK_EQUAL(with([](F&) {}).message, "");
  REFUSED(with([](F& f) { f.format = static_cast<glesam::Format>(7); }), Code::invalid_input,
          "format 7 is not known; known are 0 to 6");
  REFUSED(with([](F& f) { f.format = static_cast<glesam::Format>(-1); }), Code::invalid_input,
          "format -1 is not known");
  REFUSED(with([](F& f) { f.matrix = static_cast<glesam::YuvMatrix>(3); }), Code::invalid_input,
          "YUV matrix 3 is not known");
  REFUSED(with([](F& f) { f.range = static_cast<glesam::YuvRange>(2); }), Code::invalid_input,
          "YUV range 2 is not known");
  REFUSED(with([](F& f) { f.height = 0; }), Code::invalid_input, "63 x 0 pixels, but it needs");
  REFUSED(with([](F& f) { f.planes[2] = nullptr; }), Code::invalid_input,
          "plane 2: a null pointer for 63 x 47 pixels");
  REFUSED(with([](F& f) { f.strides[0] = 62; }), Code::invalid_input,
          "plane 0: a stride of 62 bytes, but a row of 63 I420 pixels has 63");
  REFUSED(with([](F& f) { f.strides[1] = -31; }), Code::invalid_input,
          "plane 1: a stride of -31 bytes, but a row of 32 I420 samples has 32");
  for (const std::ptrdiff_t stride :
       {std::numeric_limits<std::ptrdiff_t>::max(), std::numeric_limits<std::ptrdiff_t>::min(),
        std::ptrdiff_t{1} << 31, -(std::ptrdiff_t{1} << 31)}) {
    REFUSED(with([&](F& f) { f.strides[2] = stride; }), Code::invalid_input, "check the stride");
  }
  const glesam::Region regions[] = {{-1, 0, 9, 9},  {0, -1, 9, 9}, {0, 0, 0, 9},
                                    {0, 0, 9, 0},   {55, 0, 9, 9}, {0, 39, 9, 9},
                                    {0, 0, 64, 47}, {1, 0, 0, 0},  {2147483647, 0, 2147483647, 1}};
  for (const glesam::Region& region : regions) {
    REFUSED(with([&](F& f) { f.region = region; }), Code::invalid_input,
            "is not inside the frame of 63 x 47 pixels");
  }
  constexpr int huge = std::numeric_limits<int>::max();
  REFUSED(with([](F& f) { f.width = f.height = huge; }), Code::invalid_input, "limits.side");
  // The limits are on what is processed, which is the region. The rows below it are not read.
  CHECK(with([](F& f) {
    f.format = glesam::Format::gray;
    f.width = 64;
    f.height = huge;
    f.region = {0, 0, 64, 144};
  }));
}

// Very long and thin images: the side of one pixel must not become zero.
void slivers() {
  const auto& predictor = shared;
  predictor->reset_image();
  const std::vector<std::uint8_t> row(3 * 200'000, 7);
  CHECK(predictor->set_image({row.data(), 200'000, 1}));
  CHECK(predictor->set_image({row.data(), 1, 200'000}));
}

glesam::Status predict(glesam::Predictor& predictor, const glesam::Prompts& prompts) {
  glesam::Prediction result;
  return predictor.predict(prompts, {}, &result);
}

void prompts() {
  const auto& predictor = shared;
  predictor->reset_image();
  const double point[] = {30, 20}, outside[] = {64, 20}, bad[] = {NAN, 1};
  const float label[] = {1}, wrong[] = {2};
  glesam::Prompts good;
  good.points = point;
  good.labels = label;
  good.points_per_prompt = 1;
  REFUSED(predict(*predictor, good), Code::invalid_input, "no image is set");
  CHECK(predictor->set_image(kImage));
  CHECK(predict(*predictor, good));
  REFUSED(predictor->predict(good, {}, nullptr), Code::invalid_input, "null pointer");
  REFUSED(predict(*predictor, {}), Code::invalid_input, "no prompt: give points, a box or a mask");
  const auto with = [&](auto&& change) {
    glesam::Prompts changed = good;
    change(changed);
    return predict(*predictor, changed);
  };
  using P = glesam::Prompts;
  REFUSED(with([](P& p) { p.labels = nullptr; }), Code::invalid_input,
          "points are given without labels");
  REFUSED(with([](P& p) { p.points = nullptr; }), Code::invalid_input,
          "labels are given without points");
  REFUSED(with([](P& p) { p.count = 0; }), Code::invalid_input, "count is 0");
  REFUSED(with([](P& p) { p.points_per_prompt = 0; }), Code::invalid_input,
          "points_per_prompt is 0");
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
  REFUSED(with([](P& p) { p.count = most; }), Code::invalid_input, "limit of 10000 prompts");
  REFUSED(with([](P& p) { p.points_per_prompt = most / 8; }), Code::invalid_input,
          "in one prompt, more than the limit of 4096 points per prompt; raise limits.points");
  REFUSED(with([&](P& p) { p.points = outside; }), Code::invalid_input,
          "point 64,20 lies outside the image of 64 x 48 pixels");
  REFUSED(with([&](P& p) { p.points = bad; }), Code::invalid_input, "points: holds NaN");
  REFUSED(with([&](P& p) { p.labels = wrong; }), Code::invalid_input,
          "label 2 of point 30,20: must be 1 (object) or 0 (background)");
  const double flat[] = {10, 10, 10, 20}, away[] = {70, 10, 80, 20}, far[] = {-100, 0, 20, 20};
  const auto box = [&](const double* corners) {
    glesam::Prompts p;
    p.boxes = corners;
    return predict(*predictor, p);
  };
  REFUSED(box(flat), Code::invalid_input, "box 10,10,10,20: x1 must exceed x0");
  REFUSED(box(away), Code::invalid_input, "box 70,10,80,20 lies outside the image");
  REFUSED(box(far), Code::invalid_input, "reaches too far beyond the image");
}

void a_failure_keeps_the_image() {
  const auto& predictor = shared;
  predictor->reset_image();
  CHECK(predictor->set_image(kImage));
  CHECK(!predictor->set_image({}));
  const double box[] = {5, 5, 40, 40};
  glesam::Prompts prompts;
  prompts.boxes = box;
  CHECK(predict(*predictor, prompts));
  predictor->reset_image();
  REFUSED(predict(*predictor, prompts), Code::invalid_input, "no image is set");
}

// Each limit refuses what exceeds it, and can be lowered and raised.
void limits() {
  glesam::Limits low;
  low.side = 64;
  low.points = 3;
  low.prompts = 2;
  const auto predictor = opened(low);
  const std::vector<std::uint8_t> wide(std::size_t{65} * 2 * 3, 9);
  REFUSED(predictor->set_image({wide.data(), 65, 2}), Code::invalid_input, "limit of 64 pixels");
  REFUSED(predictor->set_image({wide.data(), 2, 65}), Code::invalid_input, "limit of 64 pixels");
  CHECK(predictor->set_image(kImage));
  const std::vector<double> points(8, 5.0);
  const std::vector<float> labels(4, 1.0F);
  glesam::Prompts prompts;
  prompts.points = points.data();
  prompts.labels = labels.data();
  prompts.points_per_prompt = 4;
  REFUSED(predict(*predictor, prompts), Code::invalid_input, "points: 4 in one prompt");
  prompts.points_per_prompt = 3;
  CHECK(predict(*predictor, prompts));
  prompts.points_per_prompt = 1;
  prompts.count = 3;
  REFUSED(predict(*predictor, prompts), Code::invalid_input, "prompts: count is 3, more than");
  prompts.count = 2;
  CHECK(predict(*predictor, prompts));

  // Without limits, sizes that fit in no memory are still refused before anything is read.
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
  glesam::Limits none;
  none.side = none.megapixels = none.points = none.prompts = most;
  const auto unlimited = opened(none);
  CHECK(unlimited->set_image(kImage));
  for (const std::size_t size : {most, most - 1, most - 2, most / 2 + 1, most / 2, most / 8}) {
    prompts.count = size;
    prompts.points_per_prompt = 1;
    REFUSED(predict(*unlimited, prompts), Code::out_of_memory, "not enough memory");
    prompts.count = 1;
    prompts.points_per_prompt = size;
    REFUSED(predict(*unlimited, prompts), Code::out_of_memory, "not enough memory");
  }
  constexpr int huge = std::numeric_limits<int>::max();
  REFUSED(unlimited->set_image({kPixels.data(), huge, huge}), Code::invalid_input,
          "fit in no memory; check the stride");
}

// A copy of the bundle whose manifest has a little more than 32 MiB.
void a_long_manifest() {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("glesam-misuse-" + std::to_string(getpid()));
  fs::create_directories(folder);
  for (const auto& entry : fs::directory_iterator(bundle)) {
    const fs::path to = folder / entry.path().filename();
    if (entry.path().filename() != "manifest.json")
      fs::create_symlink(fs::absolute(entry.path()), to);
  }
  fs::copy_file(fs::path(bundle) / "manifest.json", folder / "manifest.json");
  std::ofstream(folder / "manifest.json", std::ios::app) << std::string(32 << 20, ' ');
  std::unique_ptr<glesam::Predictor> predictor;
  glesam::Params params = glesam::default_params();
  REFUSED(glesam::Predictor::open(folder.string(), params, &predictor), Code::bad_bundle,
          "bytes, more than the limit of 32 MiB; raise limits.json_mib in the parameters");
  params.limits.json_mib = 33;
  CHECK_EQUAL(glesam::Predictor::open(folder.string(), params, &predictor).message, "");
  fs::remove_all(folder);
}

// Predictors of the same bundle in different threads give the same masks.
void threads() {
  std::vector<glesam::Prediction> results(2);
  std::vector<std::thread> running;
  for (glesam::Prediction& result : results) {
    running.emplace_back([&result] {
      const auto predictor = opened();
      const double box[] = {5, 5, 40, 40};
      glesam::Prompts prompts;
      prompts.boxes = box;
      for (int i = 0; i < 3; ++i) {
        if (!predictor->set_image(kImage)) return;
        if (!predictor->predict(prompts, {}, &result)) return;
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  for (const glesam::Prediction& result : results) {
    CHECK_EQUAL(result.masks.size(), kPixels.size() / 3);
    CHECK(result.masks == results.front().masks);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  bundle = argv[1];
  shared = opened();
  const int code =
      glesam_tests::run_tests({{"opening", opening},
                               {"images", images},
                               {"strides", strides},
                               {"frames", frames},
                               {"slivers", slivers},
                               {"prompts", prompts},
                               {"a failure keeps the image", a_failure_keeps_the_image},
                               {"limits", limits},
                               {"a long manifest", a_long_manifest},
                               {"threads", threads}});
  shared.reset();
  return code;
}
