// Makes a prediction from the decoder's logits, in the forms that the caller asks for.
#pragma once

#include <cstddef>

#include "geometry.h"
#include "glesam.h"
#include "manifest.h"
#include "masks.h"
#include "stop.h"

namespace glesam {

// Throws Error (invalid_input) if the caller's buffer is too small for `masks` masks of this size,
// and std::length_error if they fit in no memory. Call it before the decoder runs.
void check_room(const PredictParams& params, std::size_t masks, Size size);

// Returns the prediction for the chosen masks of an image of this size. check_room has accepted
// their number. Throws the errors of Stop::check.
Prediction prediction_of(Decoded chosen, const PredictParams& params, const Upscaler& upscaler,
                         Size size, const Postprocessing& rules, const Stop& stop);

}  // namespace glesam
