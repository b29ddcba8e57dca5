// The contract's types: what manifest.json says. docs/manifest.schema.json is its schema.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace glesam {

inline constexpr const char* kFormat = "glesam-bundle";
inline constexpr int kVersion = 1;
inline constexpr const char* kManifestFile = "manifest.json";

enum class Stage { encoder, enhancer, decoder };
inline constexpr Stage kStages[] = {Stage::encoder, Stage::enhancer, Stage::decoder};
inline constexpr const char* name_of(Stage stage) {
  return stage == Stage::encoder ? "encoder" : stage == Stage::enhancer ? "enhancer" : "decoder";
}

// A file of the bundle, in the manifest's own folder.
struct FileRef {
  std::string file;
  std::int64_t bytes = 0;
  std::string sha256;
};

// One axis: a size, or the capital letter of one that is free at run time.
struct Dimension {
  std::int64_t size = 0;  // 0 where it is free
  char symbol = 0;
};
bool operator==(const Dimension& a, const Dimension& b);

// One float32 input or output of a graph.
struct TensorSpec {
  std::string name;
  std::vector<Dimension> shape;
};
bool operator==(const TensorSpec& a, const TensorSpec& b);

// Sizes of a free axis that an engine was built for.
struct AxisRange {
  std::int64_t min = 1, opt = 1, max = 1;
};

struct StageRecord {
  FileRef graph;
  std::optional<FileRef> weights;  // the ONNX graph that an engine without weights takes them from
  std::optional<FileRef> data;     // external weights of the ONNX graph, beside it
  std::map<char, AxisRange> profile;  // of an engine, by the letter of the axis
  std::string precision;              // "fp32", "fp16", "bf16", "int8", "fp8"
  std::vector<TensorSpec> inputs, outputs;
};

struct Model {
  std::string family, preset, unet;
  bool trained = false;
};

// How an RGB uint8 image becomes the encoder's `image`, in this order.
struct Preprocessing {
  std::int64_t image_size = 0;  // S, pixels
  bool square = false;          // both sides to S; else the longest, in proportion
  bool float_kernel = false;    // float_bilinear; else Pillow's fixed-point bilinear
  float mean[3] = {}, std[3] = {1, 1, 1};
  bool padded = true;  // zeros right and below, up to S x S; else the image fills the square
};

struct Stability {
  double offset = 0, threshold = 0;
};

// How `low_res_masks` become masks at the image's own size.
struct Postprocessing {
  bool direct = false;  // one bilinear step to (H, W); else by way of S x S, the padding cropped
  double mask_threshold = 0;
  double stability_offset = 0;
  bool first_if_stable = false;         // else the first mask is the answer
  std::optional<Stability> stability;   // of first_if_stable
  std::optional<double> low_res_limit;  // logits that a caller gets are clipped to it
};

struct Coordinates {
  bool always_padded = false;  // two_points_padded: a padding point ends prompts with a box too
};

// How engines were compiled, and so where they run.
struct EngineBuild {
  std::string version;                            // of the library
  std::string system;                             // "linux-x86_64"
  std::vector<std::string> compute_capabilities;  // "8.9"
  bool runs_on_newer_gpus = false;                // hardware_compatibility "ampere_plus"
  bool version_compatible = false;                // later versions run it too
  bool stripped = false;                          // without weights
};

// The engine the graphs are written for.
struct Target {
  std::string engine;                // "onnx", "tensorrt", "tensorrt-rtx"
  std::int64_t batch = 0;            // N of encoder and enhancer; 0 is dynamic
  std::optional<EngineBuild> build;  // of engines
};

struct Manifest {
  Model model;
  std::map<Stage, StageRecord> stages;
  Preprocessing preprocessing;
  Postprocessing postprocessing;
  Coordinates coordinates;
  Target target;
  FileRef golden;
};

// Every file of the bundle but the manifest itself.
std::vector<FileRef> file_refs(const Manifest& manifest);

}  // namespace glesam
