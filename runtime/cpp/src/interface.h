// Names and shapes of every stage's tensors: what the contract fixes for all engines.
#pragma once

#include <string>
#include <vector>

#include "manifest.h"

namespace glesam {

struct Interface {
  std::vector<TensorSpec> inputs, outputs;
};

// `batch` as in Target.
Interface expected_interface(Stage stage, std::int64_t image_size, std::int64_t batch,
                             const std::string& family);

// name[shape] of each tensor, for messages.
std::string spell(const std::vector<TensorSpec>& specs);
// "1,3,256,256", "B,P,2".
std::string spell(const std::vector<Dimension>& shape, const char* between = ",");

}  // namespace glesam
