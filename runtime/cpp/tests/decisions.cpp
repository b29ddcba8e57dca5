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

bool same(const glesam::Decision& a, const glesam::Decision& b) {
  return a.enhanced == b.enhanced && a.estimated == b.estimated && a.estimate == b.estimate;
}

// Returns what is decided for a picture. `other` is another session of the predictor's context, whose
// image is the picture before: it keeps the decision for that, until it is given this one's features.
glesam::Decision of_picture(glesam::Predictor& predictor, glesam::Predictor& other,
                            const glesam::StoredTensor& image) {
  glesam::Decision decision, before, after;
  const bool first = !predictor.decision(&before);
  require(predictor.set_image({image.bytes.data(), static_cast<int>(image.shape[1]),
                               static_cast<int>(image.shape[0])}));
  require(predictor.decision(&decision));
  const glesam::Timings& timings = predictor.timings();
  if (timings.gate <= 0 || (timings.enhancer > 0) != decision.enhanced) {
    throw std::runtime_error("timings: other steps than the decision says");
  }
  if (first == static_cast<bool>(other.decision(&after)) || !same(after, before)) {
    throw std::runtime_error("another session: its decision changed");
  }
  glesam::Features features;
  require(predictor.get_features(&features));
  require(other.set_features(features));
  require(other.decision(&after));
  if (!same(after, decision)) throw std::runtime_error("features: another decision");
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
    std::unique_ptr<glesam::Predictor> other;
    require(predictor->share(&other));
    const glesam::EnhancementGate gate = glesam::open_bundle(argv[1]).manifest.gate.value();
    const glesam::StoredTensors cases = glesam::read_safetensors(argv[2]);
    glesam_tests::SafetensorsWriter results;
    for (int i = 0;; ++i) {
      const std::string name = std::to_string(i);
      const auto image = cases.find(name + ".image"), z = cases.find(name + ".z");
      if (image == cases.end() && z == cases.end()) break;
      const glesam::Decision made =
          z == cases.end() ? of_picture(*predictor, *other, image->second)
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
