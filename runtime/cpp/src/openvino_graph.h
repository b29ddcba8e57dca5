// A half-precision graph as OpenVINO computes it fastest; backends/openvino_graph.py does the same.
#pragma once

#include <memory>
#include <openvino/core/model.hpp>

namespace glesam {

// Makes a model float32 throughout, in place, on weights that stay in half precision. OpenVINO told
// to compute in bfloat16 does so in a graph's float32 islands too; the casts around them only keep
// attention from being fused.
void without_casts(const std::shared_ptr<ov::Model>& model);

}  // namespace glesam
