// The types of manifest.json. docs/manifest.schema.json is its schema, and
// runtime/glesam_runtime/manifest.py the Python version, which documents every field.
//
// The contract grows in two ways, and neither changes kVersion. An optional field adds knowledge: a
// reader ignores fields that it does not know. A name in `requires` changes meaning: a reader
// refuses a bundle that requires a feature which it does not know.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace glesam {

inline constexpr const char* kFormat = "glesam-bundle";
inline constexpr int kVersion = 1;
inline constexpr const char* kManifestFile = "manifest.json";

// The feature of Preprocessing::first_size.
inline constexpr std::string_view kReleasedInput = "released_input";
// The names in `requires` that this reader supports.
inline constexpr std::array<std::string_view, 1> kKnownFeatures{kReleasedInput};

inline constexpr double kPixelOffset = 0.5;

// The values of `point_labels` by meaning.
struct PromptLabel {
  const char* name;
  std::int64_t value;
};
inline constexpr PromptLabel kPromptLabels[] = {{"background", 0},
                                                {"foreground", 1},
                                                {"box_top_left", 2},
                                                {"box_bottom_right", 3},
                                                {"padding", -1}};

enum class Stage { encoder, enhancer, decoder };
inline constexpr Stage kStages[] = {Stage::encoder, Stage::enhancer, Stage::decoder};
inline constexpr const char* name_of(Stage stage) {
  return stage == Stage::encoder ? "encoder" : stage == Stage::enhancer ? "enhancer" : "decoder";
}

// A file of the bundle. It lies in the same folder as the manifest.
struct FileRef {
  std::string file;
  std::int64_t bytes = 0;
  std::string sha256;
};

// One axis: a size, or the capital letter of a dynamic axis.
struct Dimension {
  std::int64_t size = 0;  // 0: dynamic
  char symbol = 0;
};
bool operator==(const Dimension& a, const Dimension& b);

// One float32 input or output of a graph.
struct TensorSpec {
  std::string name;
  std::vector<Dimension> shape;
};
bool operator==(const TensorSpec& a, const TensorSpec& b);

// The sizes of a dynamic axis that an engine accepts; its kernels were chosen for `opt`.
struct AxisRange {
  std::int64_t min = 1, opt = 1, max = 1;
};

struct StageRecord {
  FileRef graph;
  std::optional<FileRef> weights;     // the ONNX graph with the weights of a stripped engine
  std::optional<FileRef> data;        // the ONNX graph's external weights
  std::map<char, AxisRange> profile;  // of an engine, by the letter of the axis
  std::string precision;              // "fp32", "fp16", "bf16", "int8", "fp8"
  std::vector<TensorSpec> inputs, outputs;
};

struct Model {
  std::string family, preset, unet;
  bool trained = false;
};

// How to turn an RGB uint8 image into the encoder's `image`, in this order of steps.
struct Preprocessing {
  // first_resize: both sides become this by pillow_bicubic, before the other steps. 0: no such step
  std::int64_t first_size = 0;
  std::int64_t image_size = 0;  // S, pixels
  bool square = false;          // true: both sides become S; false: the longest side becomes S
  bool float_kernel = false;    // true: float_bilinear; false: Pillow's fixed-point bilinear
  float mean[3] = {}, std[3] = {1, 1, 1};
  bool padded = true;  // true: zeros fill the right and the bottom; false: nothing to fill
};

struct Stability {
  double offset = 0, threshold = 0;
};

// How to turn `low_res_masks` into masks at the image's own size.
struct Postprocessing {
  bool direct = false;  // true: resize to (H, W) in one step; false: by way of S x S
  double mask_threshold = 0;
  double stability_offset = 0;
  bool first_if_stable = false;         // false: the first mask answers a single-mask prompt
  std::optional<Stability> stability;   // the rule of first_if_stable
  std::optional<double> low_res_limit;  // the returned logits are clipped to +-limit
};

// Which masks everything-mode keeps; here segment_anything's thresholds, for bundles that say no others.
struct EverythingThresholds {
  double pred_iou_thresh = 0.88, stability_score_thresh = 0.95, stability_score_offset = 1.0;
};

struct Coordinates {
  double pixel_offset = kPixelOffset;          // the graph adds it to each coordinate
  std::map<std::string, std::int64_t> labels;  // must equal kPromptLabels
  bool always_padded = false;  // two_points_padded: prompts with a box have a padding point too
};

// How engines were compiled, which decides where they run.
struct EngineBuild {
  std::string version;                            // of TensorRT or TensorRT-RTX
  std::string system;                             // "linux-x86_64"
  std::vector<std::string> compute_capabilities;  // "8.9"
  bool runs_on_newer_gpus = false;                // hardware_compatibility "ampere_plus"
  bool version_compatible = false;                // later versions can run them too
  bool stripped = false;                          // the engines hold no weights
};

// The engine that the graphs are written for.
struct Target {
  std::string engine;                // "onnx", "tensorrt", "tensorrt-rtx"
  std::int64_t batch = 0;            // N of encoder and enhancer; 0 is dynamic
  std::optional<EngineBuild> build;  // of engines
};

inline constexpr std::size_t kGateChannels = 256;  // channels of z_L

// A predictor of the enhancer's gain. Its fields that only inform are checked and not kept.
struct EnhancementGate {
  std::string encoder, enhancer;  // hashes of the stages that it was learned for
  std::vector<double> weights;    // of the means, then of the deviations: 2 * kGateChannels
  double bias = 0, threshold = 0;
};

struct Manifest {
  std::vector<std::string> required;  // `requires`, which is a keyword from C++20 on
  Model model;
  std::map<Stage, StageRecord> stages;
  Preprocessing preprocessing;
  Postprocessing postprocessing;
  std::optional<EverythingThresholds> everything;
  Coordinates coordinates;
  Target target;
  std::optional<EnhancementGate> gate;  // enhancement_gate
  FileRef golden;
};

// Returns every file of the bundle except the manifest itself.
std::vector<FileRef> file_refs(const Manifest& manifest);

}  // namespace glesam
