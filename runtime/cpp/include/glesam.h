// GleSAM in C++: a bundle, an image and prompts in, masks out. No Python, no image library.
//
//     glesam::Params params = glesam::default_params();
//     std::unique_ptr<glesam::Predictor> predictor;
//     glesam::Status status = glesam::Predictor::open("bundle", params, &predictor);
//     if (!status) { std::cerr << status.message << "\n"; return 2; }
//
//     predictor->set_image({rgb, width, height});            // encoded and enhanced once
//     const double point[] = {120, 80};                      // x, y in pixels of the image
//     const float label[] = {1};                             // 1 the object, 0 the background
//     glesam::Prompts prompts;
//     prompts.points = point;
//     prompts.labels = label;
//     prompts.points_per_prompt = 1;
//     glesam::Prediction result;
//     status = predictor->predict(prompts, {}, &result);     // as often as you like
//     // result.masks: width * height bytes of 0 and 1
//
// Errors. Nothing here throws, not even for want of memory: every call returns a Status, true where
// it worked. A message is one line that says what is wrong, where, and what to do. What a failed
// call was to write is as it was before, and a failed set_image keeps the image set before.
//
// Threads. There is no global state. A Predictor holds one image and takes one call at a time: use
// one a thread. Different predictors, of one bundle too, may run at the same time. The engine
// uses threads of its own; Params::threads bounds them.
//
// Memory. Pointers given are read during the call and never kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#if defined(_WIN32)
#define GLESAM_API
#else
#define GLESAM_API __attribute__((visibility("default")))
#endif

namespace glesam {

enum class Code {
  ok = 0,
  invalid_input = 1,  // an image, a prompt or an argument that cannot be used as it is
  bad_bundle = 2,     // a folder that is incomplete, altered, too new, or not a bundle
  backend = 3,        // an engine that is missing, cannot run here, or cannot load a graph
  out_of_memory = 4,
  internal = 5,  // a fault of this library
};

struct Status {
  Code code = Code::ok;
  std::string message;
  explicit operator bool() const noexcept { return code == Code::ok; }
};

// What a predictor is made with; default_params() has the values that fit most.
struct Params {
  std::string backend;         // "auto", "openvino", "onnxruntime", "tensorrt"; see backends()
  std::string device;          // "cpu", "cuda", "cuda:1"; empty is the backend's default
  std::string precision;       // empty: the graphs' own; "bf16", "fp16": OpenVINO's hint
  std::string engine_library;  // path of libonnxruntime, libnvinfer; empty searches as dlopen does
  int threads = 0;             // of the engine; 0 leaves it to the engine
  bool enhance = true;         // false: plain SAM, and the enhancer is not loaded
};

GLESAM_API Params default_params();

// The backends compiled into this library, in the order that "auto" tries them.
GLESAM_API std::vector<std::string> backends();

// The version of this library, "0.1.0".
GLESAM_API const char* version() noexcept;

// An RGB image in memory, 8 bits a channel, top row first.
struct Image {
  const std::uint8_t* rgb = nullptr;
  int width = 0;           // pixels
  int height = 0;          // pixels
  std::size_t stride = 0;  // bytes from a row to the next; 0 is 3 * width
};

// B prompts, one an object, all of one make-up: points, a box, a mask, or several of these each.
// Coordinates are pixels of the image, (x, y), (0, 0) the centre of the first.
struct Prompts {
  std::size_t count = 1;              // B
  const double* points = nullptr;     // [B, N, 2]
  const float* labels = nullptr;      // [B, N]: 1 the object, 0 the background
  std::size_t points_per_prompt = 0;  // N
  const double* boxes = nullptr;      // [B, 4]: x0, y0, x1, y1
  const float* mask_input = nullptr;  // [B, S/4, S/4]: Prediction::low_res of an earlier call
};

struct PredictParams {
  bool multimask = false;  // three masks for an ambiguous prompt, or one
  bool masks = true;       // make masks and stability
  bool logits = false;     // make logits at the image's size too: 4 bytes a pixel
};

// Row-major arrays. C is 3 with multimask, else 1.
struct Prediction {
  std::size_t count = 0;             // B
  std::size_t masks_per_prompt = 0;  // C
  std::size_t height = 0;            // H, of the image
  std::size_t width = 0;             // W
  std::size_t low_res_side = 0;      // S/4
  std::vector<std::uint8_t> masks;   // [B, C, H, W]: 0 or 1
  std::vector<float> logits;         // [B, C, H, W]: empty unless asked for
  std::vector<float> scores;         // [B, C]: the IoU that the model predicts
  std::vector<double> stability;     // [B, C]: how little a mask depends on its threshold
  std::vector<float> low_res;        // [B, C, S/4, S/4]: logits, to give back as mask_input
};

// What is loaded, and where it runs.
struct Info {
  std::string bundle;          // its folder
  std::string sha256;          // of manifest.json, which names every other file's
  std::string family;          // "sam", "sam2"
  std::string preset;          // "sam_vit_b"
  bool trained = false;        // false: random weights, whose masks mean nothing
  std::size_t image_size = 0;  // S
  std::string engine, engine_version, provider, device;
};

// Seconds that each step last took.
struct Timings {
  double load = 0, preprocess = 0, encoder = 0, enhancer = 0, decoder = 0, masks = 0;
};

class GLESAM_API Predictor {
 public:
  // Verifies every byte of a bundle, then loads its graphs.
  static Status open(const std::string& bundle, const Params& params,
                     std::unique_ptr<Predictor>* predictor) noexcept;
  ~Predictor();
  Predictor(const Predictor&) = delete;
  Predictor& operator=(const Predictor&) = delete;

  Status set_image(const Image& image) noexcept;
  void reset_image() noexcept;
  Status predict(const Prompts& prompts, const PredictParams& params, Prediction* result) noexcept;

  // What the encoder takes: [3, S, S], normalised and padded as the manifest says. For programs
  // that drive an engine of their own.
  Status preprocess(const Image& image, std::vector<float>* tensor) const noexcept;

  const Info& info() const noexcept;
  const Timings& timings() const noexcept;

 private:
  struct State;
  explicit Predictor(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

// One output of a stage that was fed the golden file's own input.
struct OutputError {
  std::string stage, output;
  std::vector<float> first, expected;  // the first values, here and in the golden file
  double relative_l2 = 0;
  double max_abs = 0;
};

// This machine against the reference, stage by stage and image to masks.
struct Selftest {
  Info info;
  std::vector<OutputError> outputs;
  double mask_iou_mean = 0, mask_iou_worst = 0;
  std::vector<std::string> failures;  // what lies outside the bundle's gate; empty is passed
};

// Runs a bundle's golden.safetensors. Figures outside the gate are failures, not an error.
GLESAM_API Status selftest(const std::string& bundle, const Params& params,
                           Selftest* result) noexcept;

}  // namespace glesam
