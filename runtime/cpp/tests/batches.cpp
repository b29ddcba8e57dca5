// Encodes pictures together, and compares each with the picture encoded alone.
// Usage: batches BUNDLE PICTURES BACKEND [LIBRARY], where PICTURES is a safetensors file of "0", "1", ...
#include <algorithm>
#include <cmath>
#include <iostream>

#include "frame_cases.h"
#include "text.h"

namespace {

using namespace glesam;
using glesam_tests::require;

struct Alone {
  Decision decision;
  Prediction prediction;
};

Alone answer_of(Predictor& predictor, const Frame& frame) {
  const double box[] = {0, 0, static_cast<double>(frame.width), static_cast<double>(frame.height)};
  Prompts prompts;
  prompts.boxes = box;
  Alone answer;
  require(predictor.decision(&answer.decision));
  require(predictor.predict(prompts, {}, &answer.prediction));
  return answer;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, static_cast<double>(std::abs(a[i] - b[i])));
  }
  return largest;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  try {
    Params params = default_params();
    params.backend = argv[3];
    if (argc > 4) params.engine_library = argv[4];
    std::unique_ptr<Predictor> predictor;
    require(Predictor::open(argv[1], params, &predictor));
    const StoredTensors pictures = read_safetensors(argv[2]);
    std::vector<Frame> frames;
    std::vector<Alone> alone;
    int enhanced = 0;
    for (std::size_t i = 0; i < pictures.size(); ++i) {
      const StoredTensor& picture = pictures.at(std::to_string(i));
      Frame frame;
      frame.height = static_cast<int>(picture.shape[0]);
      frame.width = static_cast<int>(picture.shape[1]);
      frame.planes[0] = picture.bytes.data();
      require(predictor->set_frame(frame));
      alone.push_back(answer_of(*predictor, frame));
      enhanced += alone.back().decision.enhanced;
      frames.push_back(frame);
    }
    std::vector<Features> features;
    require(predictor->encode(frames.data(), frames.size(), &features));
    double worst = 0;
    for (std::size_t i = frames.size(); i-- > 0;) {
      require(predictor->set_features(features.at(i)));
      const Alone together = answer_of(*predictor, frames[i]);
      if (together.decision.enhanced != alone[i].decision.enhanced) {
        throw std::runtime_error(cat("picture ", i, ": another decision"));
      }
      worst = std::max(
          worst, largest_difference(together.prediction.low_res, alone[i].prediction.low_res));
    }
    if (!(worst < 2e-3)) throw std::runtime_error(cat("logits differ by ", general(worst)));
    std::cout << enhanced << " of " << frames.size() << " enhanced; logits differ by " << worst
              << "\n";
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
