// Checks the informative records: provenance, parity and calibration.
#include "manifest_fields.h"

#include "text.h"

namespace glesam {
namespace {

void number(const Node& node) { read_number(node); }
void number_or_null(const Node& node) {
  if (!is_null(node)) read_number(node);
}
void string(const Node& node) { read_string(node); }

void check_source(const Node& node) {
  read_object(
      node,
      {{"role", string}, {"file", string}, {"sha256", [](const Node& n) { read_sha256(n); }}});
}

void check_stage_error(const Node& node) {
  read_object(node, {{"relative_l2", number}, {"max_abs", number}});
}

void check_image(const Node& node) {
  const auto errors = [](const Node& n) {
    read_map(n, [&](const std::string& key, const Node& value) {
      if (key != "encoder" && key != "enhancer" && key != "eps" && key != "decoder") {
        fail(n, cat("has an unknown key, ", py_repr(key)));
      }
      check_stage_error(value);
    });
  };
  read_object(node, {{"image", string},
                     {"level",
                      [](const Node& n) {
                        read_word(n, {"clear", "LQ-1", "LQ-2", "LQ-3"});
                      }},
                     {"errors", errors},
                     {"mask_iou_mean", number},
                     {"mask_iou_worst", number}});
}

void check_gate(const Node& node) {
  read_object(node, {{"stage_relative_l2", number_or_null},
                     {"mask_iou_mean", number_or_null},
                     {"mask_iou_worst", number_or_null}});
}

void check_sample(const Node& node) {
  read_object(node, {{"image", string},
                     {"sha256", [](const Node& n) { read_sha256(n); }},
                     {"level", [](const Node& n) {
                        read_word(n, {"clear", "LQ-1", "LQ-2", "LQ-3"});
                      }}});
}

void stage_name(const Node& node) { read_word(node, {"encoder", "enhancer", "decoder"}); }

}  // namespace

void check_provenance(const Node& node) {
  read_object(node, {{"sources", [](const Node& n) { read_array(n, check_source); }},
                     {"weights", string},
                     {"tools", [](const Node& n) {
                        read_map(n,
                                 [](const std::string&, const Node& value) { read_string(value); });
                      }}});
}

void check_parity(const Node& node) {
  read_object(node,
              {{"backend", string},
               {"gate", check_gate},
               {"passed", [](const Node& n) { read_bool(n); }},
               {"images", [](const Node& n) { read_array(n, check_image); }}});
}

void check_calibration(const Node& node) {
  const auto float_layers = [](const Node& n) {
    read_map(n, [&](const std::string& key, const Node& value) {
      if (key != "encoder" && key != "enhancer" && key != "decoder") {
        fail(n, cat("has an unknown key, ", py_repr(key)));
      }
      read_array(value, string);
    });
  };
  read_object(
      node,
      {{"source", [](const Node& n) { read_sha256(n); }},
       {"weights_only", [](const Node& n) { read_array(n, stage_name); }},
       {"method",
        [](const Node& n) {
          read_word(n, {"mse", "min-max", "percentile", "entropy"});
        }},
       {"percentile", number_or_null},
       {"smoothing", number_or_null},
       {"seed", [](const Node& n) { read_integer(n, std::numeric_limits<std::int64_t>::min()); }},
       {"procedural", [](const Node& n) { read_bool(n); }},
       {"samples", [](const Node& n) { read_array(n, check_sample); }},
       {"float_layers", float_layers}});
}

}  // namespace glesam
