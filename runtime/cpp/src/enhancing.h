// Deciding for an image whether to enhance it. runtime/glesam_runtime/enhancing.py is the Python
// version; both compute the same bits.
#pragma once

#include "engine.h"
#include "geometry.h"
#include "glesam.h"

namespace glesam {

// What decides: no gate enhances every image.
using GateChoice = std::optional<EnhancementGate>;

// Returns the gate that a predictor uses. Throws Error: invalid_input if the gate is required and
// the bundle has none, bad_bundle if it was learned for other graphs.
GateChoice gate_of(const Manifest& manifest, const std::string& folder, Gate wanted);

// Returns a gate's estimate of what the enhancer gains on an image. embeddings: [1, 256, S/16,
// S/16] on the host. Every operation has a fixed order.
double estimate_gain(const EnhancementGate& gate, const float* embeddings, std::int64_t side,
                     const Geometry& geometry);

}  // namespace glesam
