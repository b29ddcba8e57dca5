// The names and shapes of every stage's tensors, which the contract fixes for all engines.
#pragma once

#include <string>
#include <vector>

#include "manifest.h"

namespace glesam {

struct Interface {
  std::vector<TensorSpec> inputs, outputs;
};

// Returns the inputs and outputs that the contract fixes for a stage. `batch`: see Target.
Interface expected_interface(Stage stage, std::int64_t image_size, std::int64_t batch,
                             const std::string& family);

// Returns name[shape] of each tensor, for messages.
std::string spell(const std::vector<TensorSpec>& specs);
// Returns a shape such as "1,3,256,256" or "B,P,2".
std::string spell(const std::vector<Dimension>& shape, const char* between = ",");

}  // namespace glesam
