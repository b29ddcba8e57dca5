// Checks the informative records: provenance, parity and calibration.
#include "manifest_fields.h"
#include "text.h"

namespace glesam {
namespace {

void check_level(const Node& node) { read_word(node, {"clear", "LQ-1", "LQ-2", "LQ-3"}); }

void check_source(const Node& node) {
  read_object(node, {{"role", checked(read_string)},
                     {"file", checked(read_string)},
                     {"sha256", checked(read_sha256)}});
}

void check_stage_error(const Node& node) {
  read_object(node, {{"relative_l2", checked(number())}, {"max_abs", checked(number())}});
}

void check_image(const Node& node) {
  const auto errors = [](const Node& n) {
    read_map(n, [&](const std::string& key, const Node& value) {
      if (key != "eps") stage_of(n, key);
      check_stage_error(value);
    });
  };
  read_object(node, {{"image", checked(read_string)},
                     {"level", check_level},
                     {"errors", errors},
                     {"mask_iou_mean", checked(number())},
                     {"mask_iou_worst", checked(number())}});
}

void check_gate(const Node& node) {
  read_object(node, {{"stage_relative_l2", checked_or_null(number())},
                     {"mask_iou_mean", checked_or_null(number())},
                     {"mask_iou_worst", checked_or_null(number())}});
}

void check_sample(const Node& node) {
  read_object(node, {{"image", checked(read_string)},
                     {"sha256", checked(read_sha256)},
                     {"level", check_level}});
}

}  // namespace

void check_provenance(const Node& node) {
  const auto tools = [](const Node& n) {
    read_map(n, [](const std::string&, const Node& value) { read_string(value); });
  };
  read_object(node, {{"sources", checked_list(check_source)},
                     {"weights", checked(read_string)},
                     {"tools", tools}});
}

void check_parity(const Node& node) {
  read_object(node, {{"backend", checked(read_string)},
                     {"gate", check_gate},
                     {"passed", checked(read_bool)},
                     {"images", checked_list(check_image)}});
}

void check_calibration(const Node& node) {
  const auto float_layers = [](const Node& n) {
    read_map(n, [&](const std::string& key, const Node& value) {
      stage_of(n, key);
      checked_list(read_string)(value);
    });
  };
  read_object(node, {{"source", checked(read_sha256)},
                     {"weights_only", checked_list(word({"encoder", "enhancer", "decoder"}))},
                     {"method", checked(word({"mse", "min-max", "percentile", "entropy"}))},
                     {"percentile", checked_or_null(number())},
                     {"smoothing", checked_or_null(number())},
                     {"seed", checked(integer())},
                     {"procedural", checked(read_bool)},
                     {"samples", checked_list(check_sample)},
                     {"float_layers", float_layers}});
}

}  // namespace glesam
