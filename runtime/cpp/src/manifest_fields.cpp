#include "manifest_fields.h"

#include <algorithm>

#include "text.h"

namespace glesam {
namespace {

constexpr Range kBounded{-kUnbounded, -1e6, 1e6, kUnbounded};
// Of a divisor or an offset. Beyond these bounds float32 loses all digits of a pixel or a logit.
constexpr Range kScale{-kUnbounded, 1e-6, 1e6, kUnbounded};
constexpr Range kPositive{0};
constexpr Range kNotNegative{-kUnbounded, 0};
constexpr Range kInsideUnit{0, -kUnbounded, kUnbounded, 1};

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

std::string read_file_name(const Node& node) {
  constexpr std::size_t kMost = 128;
  std::string name = read_string(node);
  const bool fits = !name.empty() && name.size() <= kMost && is_alphanumeric(name.front()) &&
                    std::all_of(name.begin(), name.end(), [](char c) {
                      return is_alphanumeric(c) || c == '.' || c == '_' || c == '-';
                    });
  if (!fits) fail(node, cat("must be a plain file name of at most ", kMost, " characters"));
  return name;
}

Dimension read_dimension(const Node& node) {
  if (node.value.kind != Json::Kind::string) return {read_integer(node, 1), 0};
  const std::string& name = node.value.text;
  if (name.size() != 1 || name.front() < 'A' || name.front() > 'Z') {
    fail(node, "must be a capital letter");
  }
  return {0, name.front()};
}

TensorSpec read_tensor(const Node& node) {
  TensorSpec spec;
  read_object(node, {{"name", into(spec.name, read_string)},
                     {"dtype", checked(word({"float32"}))},
                     {"shape", into_list(spec.shape, read_dimension)}});
  return spec;
}

StageRecord read_stage(const Node& node) {
  StageRecord stage;
  const auto profile = [&](const Node& n) {
    stage.profile = is_null(n) ? std::map<char, AxisRange>() : read_profile(n);
  };
  read_object(node, {{"graph", into(stage.graph, read_file_ref)},
                     {"precision", into(stage.precision,
                                        word({"fp32", "fp16", "bf16", "int8", "fp8"}))},
                     {"inputs", into_list(stage.inputs, read_tensor)},
                     {"outputs", into_list(stage.outputs, read_tensor)},
                     {"data", into_optional(stage.data, read_file_ref), false},
                     {"weights", into_optional(stage.weights, read_file_ref), false},
                     {"islands", checked_list(read_string), false},
                     {"profile", profile, false}});
  return stage;
}

Model read_model(const Node& node) {
  Model model;
  read_object(node, {{"family", into(model.family, word({"sam", "sam2"}))},
                     {"preset", into(model.preset, read_string)},
                     {"unet", into(model.unet, read_string)},
                     {"trained", into(model.trained, read_bool)},
                     {"gamma", checked(number(kPositive))},
                     {"timestep", checked(integer(0))},
                     {"alpha_bar", checked(number(kInsideUnit))}});
  return model;
}

std::int64_t read_first_resize(const Node& node) {
  std::int64_t size = 0;
  read_object(node,
              {{"size", into(size, integer(1))}, {"kernel", checked(word({"pillow_bicubic"}))}});
  return size;
}

// Returns a reader for three numbers.
Reader into_triple(float* values, const Range& range) {
  return [values, range](const Node& node) {
    std::size_t i = 0;
    const auto read = [&](const Node& n) { values[i++] = static_cast<float>(read_number(n, range)); };
    read_array(node, read, 3);
  };
}

Preprocessing read_preprocessing(const Node& node) {
  Preprocessing rules;
  read_object(node, {{"image_size", into(rules.image_size, integer(16))},
                     {"resize", into(rules.square, is_word("square", "longest_side"))},
                     {"kernel", into(rules.float_kernel, is_word("float_bilinear", "pillow_bilinear"))},
                     {"channel_order", checked(word({"RGB"}))},
                     {"mean", into_triple(rules.mean, kBounded)},
                     {"std", into_triple(rules.std, kScale)},
                     {"pad", into(rules.padded, is_word("right_bottom", "none"))},
                     {"first_resize", into(rules.first_size, read_first_resize), false}});
  return rules;
}

Stability read_stability(const Node& node) {
  Stability stability;
  read_object(node, {{"offset", into(stability.offset, number(kScale))},
                     {"threshold", into(stability.threshold, number(kFraction))}});
  return stability;
}

EverythingThresholds read_everything(const Node& node) {
  EverythingThresholds keep;
  read_object(node, {{"pred_iou_thresh", into(keep.pred_iou_thresh, number(kFraction))},
                     {"stability_score_thresh", into(keep.stability_score_thresh, number(kFraction))},
                     {"stability_score_offset",
                      into(keep.stability_score_offset, number(kNotNegative))}});
  return keep;
}

Postprocessing read_postprocessing(const Node& node) {
  Postprocessing rules;
  read_object(node, {{"upscale", into(rules.direct, is_word("bilinear_direct", "bilinear"))},
                     {"mask_threshold", into(rules.mask_threshold, number(kBounded))},
                     {"stability_offset", into(rules.stability_offset, number(kScale))},
                     {"single_mask", into(rules.first_if_stable, is_word("first_if_stable", "first"))},
                     {"stability", into_optional(rules.stability, read_stability), false},
                     {"low_res_limit", into_optional(rules.low_res_limit, number(kScale)), false}});
  return rules;
}

Coordinates read_coordinates(const Node& node) {
  Coordinates rules;
  const auto labels = [&](const Node& n) {
    rules.labels.clear();
    read_map(n, [&](const std::string& key, const Node& v) { rules.labels[key] = integer()(v); });
  };
  read_object(node, {{"order", checked(word({"xy"}))},
                     {"space", checked(word({"resized_pixels"}))},
                     {"pixel_offset", into(rules.pixel_offset, number())},
                     {"labels", labels},
                     {"box", into(rules.always_padded, is_word("two_points_padded", "two_points"))}});
  return rules;
}

}  // namespace

Stage stage_of(const Node& node, const std::string& key) {
  for (const Stage stage : kStages) {
    if (key == name_of(stage)) return stage;
  }
  fail(node, cat("has an unknown key, ", py_repr(key)));
}

std::string read_sha256(const Node& node) {
  std::string digits = read_string(node);
  const bool fits = digits.size() == 64 && std::all_of(digits.begin(), digits.end(), [](char c) {
                      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                    });
  if (!fits) fail(node, "must be 64 lower-case hex digits");
  return digits;
}

FileRef read_file_ref(const Node& node) {
  FileRef ref;
  read_object(node, {{"file", into(ref.file, read_file_name)},
                     {"bytes", into(ref.bytes, integer(0))},
                     {"sha256", into(ref.sha256, read_sha256)}});
  return ref;
}

Manifest read_manifest(const Node& node) {
  Manifest manifest;
  const auto stages = [&](const Node& n) {
    manifest.stages.clear();
    read_map(n, [&](const std::string& key, const Node& value) {
      const Stage stage = stage_of(n, key);  // first, so that an unknown key is the error
      manifest.stages[stage] = read_stage(value);
    });
  };
  read_object(node, {{"format", checked(word({kFormat}))},
                     {"version", checked(integer(kVersion))},
                     {"requires", into_list(manifest.required, read_string), false},
                     {"model", into(manifest.model, read_model)},
                     {"stages", stages},
                     {"preprocessing", into(manifest.preprocessing, read_preprocessing)},
                     {"postprocessing", into(manifest.postprocessing, read_postprocessing)},
                     {"everything", into_optional(manifest.everything, read_everything), false},
                     {"coordinates", into(manifest.coordinates, read_coordinates)},
                     {"enhancement_gate", into(manifest.gate, read_gate), false},
                     {"target", into(manifest.target, read_target)},
                     {"provenance", check_provenance},
                     {"parity", checked_or_null(check_parity)},
                     {"golden", into(manifest.golden, read_file_ref)},
                     {"calibration", checked_or_null(check_calibration), false}});
  return manifest;
}

}  // namespace glesam
