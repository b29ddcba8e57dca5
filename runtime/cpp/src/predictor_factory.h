// Makes a predictor from its parts, so that tests can pass an engine of their own.
#pragma once

#include <memory>

#include "context.h"
#include "engine.h"
#include "glesam.h"

namespace glesam {

struct PredictorFactory {
  // Returns a session of a context, which is a predictor without an image.
  static std::unique_ptr<Predictor> make(std::shared_ptr<const SharedContext> context);

  // `engine` has loaded the graphs of `bundle`: all stages, or all but the enhancer if
  // `params.enhance` is false.
  static std::unique_ptr<Predictor> make(Bundle bundle, std::shared_ptr<Engine> engine,
                                         const Params& params);
};

}  // namespace glesam
