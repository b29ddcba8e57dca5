// Makes a predictor from its parts, so that tests can pass an engine of their own.
#pragma once

#include <memory>

#include "engine.h"
#include "glesam.h"

namespace glesam {

struct PredictorFactory {
  // `engine` has loaded the graphs of `bundle`: all stages, or all but the enhancer if
  // `params.enhance` is false.
  static std::unique_ptr<Predictor> make(Bundle bundle, std::shared_ptr<Engine> engine,
                                         const Params& params);
};

}  // namespace glesam
