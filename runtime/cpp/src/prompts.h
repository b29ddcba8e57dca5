// Checks prompts and turns them into the decoder's four prompt inputs.
#pragma once

#include "geometry.h"
#include "glesam.h"
#include "input_limits.h"
#include "manifest.h"
#include "tensor.h"

namespace glesam {

// Throws Error (invalid_input) if there is no prompt, one is wrong, or there are more than the
// limits accept. Throws std::length_error if the arrays fit in no memory.
void check_prompts(const Prompts& prompts, const Geometry& geometry, const Limits& limits);

// Returns prompts `first` to `first` + `count` of checked prompts. The result points into the same
// arrays.
Prompts part_of(const Prompts& prompts, std::size_t first, std::size_t count,
                const Geometry& geometry);

// Returns point_coords, point_labels, mask_input and has_mask_input of checked prompts. The order
// of tokens is that of SAM's prompt encoder: points, then the box's two corners, then the padding
// point if the rules require one.
Tensors prompt_tensors(const Prompts& prompts, const Geometry& geometry, const Coordinates& rules);

}  // namespace glesam
