#include "manifest_fields.h"

#include <algorithm>
#include <limits>

#include "text.h"

namespace glesam {
namespace {

constexpr double kNoBound = std::numeric_limits<double>::infinity();
constexpr Range kBounded{-kNoBound, -1e6, 1e6, kNoBound};
// Of a divisor or an offset. Beyond these bounds float32 loses all digits of a pixel or a logit.
constexpr Range kScale{-kNoBound, 1e-6, 1e6, kNoBound};

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// In the Python reader a pattern's "$" accepts a final line break, and so do these readers;
// is_plain_name in manifest_check.cpp refuses it.
std::string_view without_last_break(std::string_view text) {
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  return text;
}

std::string read_file_name(const Node& node) {
  const std::string text = read_string(node);
  const auto characters = std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  });
  if (characters > 128) fail(node, "must have at most 128 characters");
  const std::string_view name = without_last_break(text);
  const bool fits = !name.empty() && is_alphanumeric(name.front()) &&
                    std::all_of(name.begin(), name.end(), [](char c) {
                      return is_alphanumeric(c) || c == '.' || c == '_' || c == '-';
                    });
  if (!fits) fail(node, "must be a plain file name");
  return text;
}

Dimension read_dimension(const Node& node) {
  if (node.value.kind != Json::Kind::string) return {read_integer(node, 1), 0};
  const std::string_view name = without_last_break(node.value.text);
  if (name.size() != 1 || name.front() < 'A' || name.front() > 'Z') {
    fail(node, "must be a capital letter");
  }
  return {0, name.front()};
}

TensorSpec read_tensor(const Node& node) {
  TensorSpec spec;
  read_object(node, {{"name", [&](const Node& n) { spec.name = read_string(n); }},
                     {"dtype", [](const Node& n) { read_word(n, {"float32"}); }},
                     {"shape", [&](const Node& n) {
                        read_array(n, [&](const Node& axis) {
                          spec.shape.push_back(read_dimension(axis));
                        });
                      }}});
  return spec;
}

StageRecord read_stage(const Node& node) {
  StageRecord stage;
  const auto tensors = [](std::vector<TensorSpec>& into) {
    return [&into](const Node& n) {
      into.clear();
      read_array(n, [&](const Node& item) { into.push_back(read_tensor(item)); });
    };
  };
  read_object(node,
              {{"graph", [&](const Node& n) { stage.graph = read_file_ref(n); }},
               {"precision",
                [&](const Node& n) {
                  stage.precision = read_word(n, {"fp32", "fp16", "bf16", "int8", "fp8"});
                }},
               {"inputs", tensors(stage.inputs)},
               {"outputs", tensors(stage.outputs)},
               {"data",
                [&](const Node& n) {
                  stage.data.reset();
                  if (!is_null(n)) stage.data = read_file_ref(n);
                },
                false},
               {"weights",
                [&](const Node& n) {
                  stage.weights.reset();
                  if (!is_null(n)) stage.weights = read_file_ref(n);
                },
                false},
               {"islands",
                [](const Node& n) { read_array(n, [](const Node& i) { read_string(i); }); }, false},
               {"profile",
                [&](const Node& n) {
                  stage.profile.clear();
                  if (!is_null(n)) stage.profile = read_profile(n);
                },
                false}});
  return stage;
}

Model read_model(const Node& node) {
  Model model;
  read_object(node, {{"family",
                      [&](const Node& n) {
                        model.family = read_word(n, {"sam", "sam2"});
                      }},
                     {"preset", [&](const Node& n) { model.preset = read_string(n); }},
                     {"unet", [&](const Node& n) { model.unet = read_string(n); }},
                     {"trained", [&](const Node& n) { model.trained = read_bool(n); }},
                     {"gamma", [](const Node& n) { read_number(n, {0}); }},
                     {"timestep", [](const Node& n) { read_integer(n, 0); }},
                     {"alpha_bar", [](const Node& n) {
                        Range inside;
                        inside.above = 0;
                        inside.below = 1;
                        read_number(n, inside);
                      }}});
  return model;
}

std::int64_t read_first_resize(const Node& node) {
  std::int64_t size = 0;
  read_object(node, {{"size", [&](const Node& n) { size = read_integer(n, 1); }},
                     {"kernel", [](const Node& n) { read_word(n, {"pillow_bicubic"}); }}});
  return size;
}

Preprocessing read_preprocessing(const Node& node) {
  Preprocessing rules;
  const auto triple = [](float* into, const Range& range) {
    return [into, range](const Node& n) {
      std::size_t i = 0;
      read_array(
          n, [&](const Node& v) { into[i++] = static_cast<float>(read_number(v, range)); }, 3);
    };
  };
  read_object(node, {{"image_size", [&](const Node& n) { rules.image_size = read_integer(n, 16); }},
                     {"resize",
                      [&](const Node& n) {
                        rules.square = read_word(n, {"longest_side", "square"}) == "square";
                      }},
                     {"kernel",
                      [&](const Node& n) {
                        rules.float_kernel =
                            read_word(n, {"pillow_bilinear", "float_bilinear"}) == "float_bilinear";
                      }},
                     {"channel_order", [](const Node& n) { read_word(n, {"RGB"}); }},
                     {"mean", triple(rules.mean, kBounded)},
                     {"std", triple(rules.std, kScale)},
                     {"pad",
                      [&](const Node& n) {
                        rules.padded = read_word(n, {"right_bottom", "none"}) != "none";
                      }},
                     {"first_resize",
                      [&](const Node& n) { rules.first_size = read_first_resize(n); }, false}});
  return rules;
}

Stability read_stability(const Node& node) {
  Stability stability;
  read_object(node,
              {{"offset", [&](const Node& n) { stability.offset = read_number(n, kScale); }},
               {"threshold",
                [&](const Node& n) {
                  Range unit;
                  unit.from = 0;
                  unit.to = 1;
                  stability.threshold = read_number(n, unit);
                }}});
  return stability;
}

EverythingThresholds read_everything(const Node& node) {
  constexpr double kAny = std::numeric_limits<double>::infinity();
  EverythingThresholds keep;
  const auto number = [](double& into, double most) {
    return [&into, most](const Node& n) {
      Range range;
      range.from = 0;
      range.to = most;
      into = read_number(n, range);
    };
  };
  read_object(node, {{"pred_iou_thresh", number(keep.pred_iou_thresh, 1)},
                     {"stability_score_thresh", number(keep.stability_score_thresh, 1)},
                     {"stability_score_offset", number(keep.stability_score_offset, kAny)}});
  return keep;
}

Postprocessing read_postprocessing(const Node& node) {
  Postprocessing rules;
  read_object(
      node,
      {{"upscale",
        [&](const Node& n) {
          rules.direct = read_word(n, {"bilinear", "bilinear_direct"}) == "bilinear_direct";
        }},
       {"mask_threshold", [&](const Node& n) { rules.mask_threshold = read_number(n, kBounded); }},
       {"stability_offset", [&](const Node& n) { rules.stability_offset = read_number(n, kScale); }},
       {"single_mask",
        [&](const Node& n) {
          rules.first_if_stable = read_word(n, {"first", "first_if_stable"}) == "first_if_stable";
        }},
       {"stability",
        [&](const Node& n) {
          rules.stability.reset();
          if (!is_null(n)) rules.stability = read_stability(n);
        },
        false},
       {"low_res_limit",
        [&](const Node& n) {
          rules.low_res_limit.reset();
          if (!is_null(n)) rules.low_res_limit = read_number(n, kScale);
        },
        false}});
  return rules;
}

Coordinates read_coordinates(const Node& node) {
  Coordinates rules;
  const std::int64_t any = std::numeric_limits<std::int64_t>::min();
  read_object(node, {{"order", [](const Node& n) { read_word(n, {"xy"}); }},
                     {"space", [](const Node& n) { read_word(n, {"resized_pixels"}); }},
                     {"pixel_offset", [&](const Node& n) { rules.pixel_offset = read_number(n); }},
                     {"labels",
                      [&](const Node& n) {
                        rules.labels.clear();
                        read_map(n, [&](const std::string& key, const Node& v) {
                          rules.labels[key] = read_integer(v, any);
                        });
                      }},
                     {"box", [&](const Node& n) {
                        rules.always_padded = read_word(n, {"two_points", "two_points_padded"}) ==
                                              "two_points_padded";
                      }}});
  return rules;
}

}  // namespace

std::string read_sha256(const Node& node) {
  const std::string text = read_string(node);
  const std::string_view digits = without_last_break(text);
  const bool fits = digits.size() == 64 && std::all_of(digits.begin(), digits.end(), [](char c) {
                      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                    });
  if (!fits) fail(node, "must be 64 lower-case hex digits");
  return text;
}

FileRef read_file_ref(const Node& node) {
  FileRef ref;
  read_object(node,
              {{"file", [&](const Node& n) { ref.file = read_file_name(n); }},
               {"bytes", [&](const Node& n) { ref.bytes = read_integer(n, 0); }},
               {"sha256", [&](const Node& n) { ref.sha256 = read_sha256(n); }}});
  return ref;
}

Manifest read_manifest(const Node& node) {
  Manifest manifest;
  const auto stages = [&](const Node& n) {
    manifest.stages.clear();
    read_map(n, [&](const std::string& key, const Node& value) {
      const auto* stage = std::find_if(std::begin(kStages), std::end(kStages),
                                       [&](Stage s) { return key == name_of(s); });
      if (stage == std::end(kStages)) fail(n, cat("has an unknown key, ", py_repr(key)));
      manifest.stages[*stage] = read_stage(value);
    });
  };
  read_object(
      node,
      {{"format", [](const Node& n) { read_word(n, {kFormat}); }},
       {"version", [](const Node& n) { read_integer(n, kVersion); }},
       {"requires",
        [&](const Node& n) {
          manifest.required.clear();
          read_array(n, [&](const Node& i) { manifest.required.push_back(read_string(i)); });
        },
        false},
       {"model", [&](const Node& n) { manifest.model = read_model(n); }},
       {"stages", stages},
       {"preprocessing", [&](const Node& n) { manifest.preprocessing = read_preprocessing(n); }},
       {"postprocessing", [&](const Node& n) { manifest.postprocessing = read_postprocessing(n); }},
       {"everything",
        [&](const Node& n) {
          manifest.everything.reset();
          if (!is_null(n)) manifest.everything = read_everything(n);
        },
        false},
       {"coordinates", [&](const Node& n) { manifest.coordinates = read_coordinates(n); }},
       {"enhancement_gate", [&](const Node& n) { manifest.gate = read_gate(n); }, false},
       {"target", [&](const Node& n) { manifest.target = read_target(n); }},
       {"provenance", check_provenance},
       {"parity",
        [](const Node& n) {
          if (!is_null(n)) check_parity(n);
        }},
       {"golden", [&](const Node& n) { manifest.golden = read_file_ref(n); }},
       {"calibration",
        [](const Node& n) {
          if (!is_null(n)) check_calibration(n);
        },
        false}});
  return manifest;
}

}  // namespace glesam
