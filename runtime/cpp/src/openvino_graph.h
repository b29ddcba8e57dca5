// Rewrites a half-precision graph so that OpenVINO runs it faster, as backends/openvino.py
// does.
#pragma once

#include <memory>
#include <openvino/core/model.hpp>

namespace glesam {

// Removes the casts from a model in place: every tensor becomes float32, and only the stored weights
// stay in half precision. If OpenVINO is told to compute in bfloat16, it does so in the graph's
// float32 islands too, and the casts around the islands only prevent the fusion of attention.
void without_casts(const std::shared_ptr<ov::Model>& model);

}  // namespace glesam
