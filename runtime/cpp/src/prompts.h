// Prompts, checked in the original image's pixels, as the decoder's four prompt inputs.
#pragma once

#include "geometry.h"
#include "glesam.h"
#include "manifest.h"
#include "tensor.h"

namespace glesam {

// point_coords, point_labels, mask_input and has_mask_input, tokens in the order of SAM's prompt
// encoder: points, then the box's two corners, then the padding point where the rules ask for one.
// Throws Error (invalid_input) for no prompt at all, or the first thing wrong with one.
Tensors prompt_tensors(const Prompts& prompts, const Geometry& geometry, const Coordinates& rules);

}  // namespace glesam
