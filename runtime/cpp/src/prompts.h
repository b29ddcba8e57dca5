// Checks prompts and turns them into the decoder's four prompt inputs.
#pragma once

#include "geometry.h"
#include "glesam.h"
#include "manifest.h"
#include "tensor.h"

namespace glesam {

// Returns point_coords, point_labels, mask_input and has_mask_input. The order of tokens is that of
// SAM's prompt encoder: points, then the box's two corners, then the padding point if the rules
// require one. Throws Error (invalid_input) if there is no prompt or one is wrong.
Tensors prompt_tensors(const Prompts& prompts, const Geometry& geometry, const Coordinates& rules);

}  // namespace glesam
