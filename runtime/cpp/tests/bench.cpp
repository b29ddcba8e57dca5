// Times the library for tests/studies/cpp.py.
// Usage: bench BUNDLE RGB WIDTH HEIGHT PRECISION. For each line on stdin it runs one round and prints
// the seconds of set_image and predict.
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>

#include "glesam.h"

namespace {

double now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

void require(const glesam::Status& status) {
  if (status) return;
  std::cerr << "error: " << status.message << "\n";
  std::exit(2);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  std::ifstream file(argv[2], std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  const int width = std::atoi(argv[3]), height = std::atoi(argv[4]);
  if (bytes.size() != static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3)
    return 2;
  glesam::Params params = glesam::default_params();
  params.backend = "openvino";
  params.precision = argv[5];
  std::unique_ptr<glesam::Predictor> predictor;
  require(glesam::Predictor::open(argv[1], params, &predictor));
  const double point[] = {width / 2.0, height / 2.0};
  const float label[] = {1};
  glesam::Prompts prompts;
  prompts.points = point;
  prompts.labels = label;
  prompts.points_per_prompt = 1;
  std::cout << "ready" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
    const double begin = now();
    require(
        predictor->set_image({reinterpret_cast<const std::uint8_t*>(bytes.data()), width, height}));
    const double encoded = now();
    glesam::Prediction result;
    require(predictor->predict(prompts, {}, &result));
    std::cout << encoded - begin << " " << now() - encoded << std::endl;
  }
  return 0;
}
