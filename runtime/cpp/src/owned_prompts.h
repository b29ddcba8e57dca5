// A copy of prompts, for a call that outlives the caller's arrays.
#pragma once

#include <vector>

#include "glesam.h"
#include "input_limits.h"

namespace glesam {

class OwnedPrompts {
 public:
  // `side` is S/4. Throws Error (invalid_input) if there are more than the limits accept, and
  // std::length_error if the arrays fit in no memory. Everything else is checked later.
  OwnedPrompts(const Prompts& given, std::size_t side, const Limits& limits);

  // Returns prompts that point into this object.
  Prompts prompts() const;

 private:
  Prompts given_;
  std::vector<double> points_, boxes_;
  std::vector<float> labels_, mask_input_;
};

}  // namespace glesam
