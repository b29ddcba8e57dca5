// Preprocesses the frames of a safetensors file (frame_cases.h) and writes the encoder's inputs.
// Usage: frames BUNDLE CASES RESULTS
#include <iostream>

#include "frame_cases.h"
#include "safetensors_writer.h"

namespace {

using namespace glesam_tests;

void run_case(glesam::Predictor& predictor, const FrameCase& given, const std::string& name,
              SafetensorsWriter& results) {
  const glesam::Frame frame = given.in(given.memory.data());
  std::vector<float> tensor;
  require(predictor.preprocess(frame, &tensor));
  const std::size_t size = predictor.info().image_size;
  results.add(name + ".tensor", "F32", {1, 3, size, size}, tensor);
  if (!given.runs) return;
  require(predictor.set_frame(frame));
  const double box[] = {0, 0, static_cast<double>(frame.region.width),
                        static_cast<double>(frame.region.height)};
  glesam::Prompts prompts;
  prompts.boxes = box;
  glesam::Prediction made;
  require(predictor.predict(prompts, {}, &made));
  results.add(name + ".masks", "U8", {made.height, made.width}, made.masks);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    std::unique_ptr<glesam::Predictor> predictor;
    require(glesam::Predictor::open(argv[1], glesam::default_params(), &predictor));
    const glesam::StoredTensors cases = glesam::read_safetensors(argv[2]);
    SafetensorsWriter results;
    for (int i = 0; has_case(cases, i); ++i) {
      run_case(*predictor, read_case(cases, i), std::to_string(i), results);
    }
    results.write(argv[3]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
