// Decides by a bundle's gate, and writes what was decided.
// Usage: decisions BUNDLE CASES RESULTS [BACKEND [LIBRARY]]
//
// CASES is a safetensors file. "i.image" uint8 [H, W, 3] is a picture; z "i.z" float32 [1, 256, s, s]
// with "i.resized" int64 [2] (height, width) is what an encoder returned. RESULTS has "i.enhanced"
// uint8 [1] and "i.estimate" float64 [1] for each i.
#include <cstring>
#include <iostream>

#include "bundle.h"
#include "enhancing.h"
#include "glesam.h"
#include "safetensors.h"
#include "safetensors_writer.h"

namespace {

void require(const glesam::Status& status) {
  if (!status) throw std::runtime_error(status.message);
}

glesam::Decision of_picture(glesam::Predictor& predictor, const glesam::StoredTensor& image) {
  glesam::Decision decision;
  require(predictor.set_image({image.bytes.data(), static_cast<int>(image.shape[1]),
                               static_cast<int>(image.shape[0])}));
  require(predictor.decision(&decision));
  return decision;
}

glesam::Decision of_embeddings(const glesam::EnhancementGate& gate,
                               const glesam::StoredTensor& embeddings,
                               const glesam::StoredTensor& resized) {
  std::vector<float> values(embeddings.bytes.size() / sizeof(float));
  std::memcpy(values.data(), embeddings.bytes.data(), embeddings.bytes.size());
  std::int64_t size[2];
  std::memcpy(size, resized.bytes.data(), sizeof size);
  glesam::Geometry geometry;
  geometry.resized = {size[0], size[1]};
  const double estimate =
      glesam::estimate_gain(gate, values.data(), embeddings.shape[3], geometry);
  return {estimate > gate.threshold, true, estimate};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  try {
    glesam::Params params = glesam::default_params();
    params.gate = glesam::Gate::required;
    if (argc > 4) params.backend = argv[4];
    if (argc > 5) params.engine_library = argv[5];
    std::unique_ptr<glesam::Predictor> predictor;
    require(glesam::Predictor::open(argv[1], params, &predictor));
    const glesam::EnhancementGate gate = glesam::open_bundle(argv[1]).manifest.gate.value();
    const glesam::StoredTensors cases = glesam::read_safetensors(argv[2]);
    glesam_tests::SafetensorsWriter results;
    for (int i = 0;; ++i) {
      const std::string name = std::to_string(i);
      const auto image = cases.find(name + ".image"), z = cases.find(name + ".z");
      if (image == cases.end() && z == cases.end()) break;
      const glesam::Decision made =
          z == cases.end() ? of_picture(*predictor, image->second)
                           : of_embeddings(gate, z->second, cases.at(name + ".resized"));
      results.add(name + ".enhanced", "U8", {1},
                  std::vector<std::uint8_t>{static_cast<std::uint8_t>(made.enhanced)});
      results.add(name + ".estimate", "F64", {1}, std::vector<double>{made.estimate});
    }
    results.write(argv[3]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
