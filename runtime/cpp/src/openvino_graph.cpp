#include "openvino_graph.h"

#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/result.hpp>
#include <set>

namespace glesam {
namespace {

bool is_float(const ov::element::Type& type) {
  return type == ov::element::f32 || type == ov::element::f16 || type == ov::element::bf16;
}

// Connects inputs to another source without moving tensor names to it.
void lead(const std::set<ov::Input<ov::Node>>& readers, const ov::Output<ov::Node>& source) {
  for (ov::Input<ov::Node> reader : readers) reader.replace_source_output(source);
}

void widen(const std::shared_ptr<ov::Node>& constant) {
  const auto readers = constant->output(0).get_target_inputs();
  const auto weight = std::make_shared<ov::op::v0::Convert>(constant, ov::element::f32);
  // This marks a compressed weight, which OpenVINO does not constant-fold.
  weight->get_rt_info()["decompression_0"] = std::string();
  lead(readers, weight->output(0));
}

void skip(const std::shared_ptr<ov::Node>& cast) {
  ov::Output<ov::Node> source = cast->input_value(0);
  const auto readers = cast->output(0).get_target_inputs();
  for (const auto& reader : readers) {
    if (ov::is_type<ov::op::v0::Result>(reader.get_node())) {
      source.get_tensor().set_names(
          cast->output(0).get_names());  // an output of the graph keeps its name
    }
  }
  lead(readers, source);
}

}  // namespace

void without_casts(const std::shared_ptr<ov::Model>& model) {
  for (const auto& node : model->get_ordered_ops()) {
    if (node->get_output_size() == 0 || !is_float(node->get_output_element_type(0))) continue;
    if (ov::is_type<ov::op::v0::Constant>(node)) {
      if (node->get_output_element_type(0) != ov::element::f32) widen(node);
    } else if (ov::is_type<ov::op::v0::Convert>(node) &&
               is_float(node->get_input_element_type(0)) &&
               !ov::is_type<ov::op::v0::Constant>(node->get_input_node_shared_ptr(0))) {
      skip(node);
    }
  }
  model->validate_nodes_and_infer_types();
}

}  // namespace glesam
