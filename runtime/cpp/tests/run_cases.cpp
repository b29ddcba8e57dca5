// Runs the cases of a safetensors file through the library and writes the results.
// Usage: run_cases BUNDLE CASES RESULTS [BACKEND [LIBRARY]]
//
// Case i: "i.image" uint8 [H, W, 3]; "i.points" float64 [B, N, 2] with "i.labels" float32 [B, N];
// "i.boxes" float64 [B, 4]; "i.mask" float32 [B, 1, S/4, S/4]; "i.flags" uint8: multimask, bytes
// by which the stride exceeds a row.
#include <cstring>
#include <iostream>

#include "glesam.h"
#include "safetensors.h"
#include "safetensors_writer.h"

namespace {

template <typename Value>
std::vector<Value> values_of(const glesam::StoredTensors& cases, const std::string& name) {
  const auto found = cases.find(name);
  if (found == cases.end()) return {};
  std::vector<Value> values(found->second.bytes.size() / sizeof(Value));
  std::memcpy(values.data(), found->second.bytes.data(), found->second.bytes.size());
  return values;
}

void require(const glesam::Status& status) {
  if (!status) throw std::runtime_error(status.message);
}

void run_case(glesam::Predictor& predictor, const glesam::StoredTensors& cases,
              const std::string& name, glesam_tests::SafetensorsWriter& results) {
  const glesam::StoredTensor& stored = cases.at(name + ".image");
  const auto height = static_cast<std::size_t>(stored.shape[0]);
  const auto row = static_cast<std::size_t>(stored.shape[1]) * 3;
  const auto flags = values_of<std::uint8_t>(cases, name + ".flags");
  const std::size_t stride = row + flags[1];
  std::vector<std::uint8_t> pixels(height * stride, 0xa5);
  for (std::size_t y = 0; y < height; ++y) {
    std::memcpy(pixels.data() + y * stride, stored.bytes.data() + y * row, row);
  }
  const glesam::Image image{pixels.data(), static_cast<int>(row / 3), static_cast<int>(height),
                            stride};
  std::vector<float> tensor;
  require(predictor.preprocess(image, &tensor));
  require(predictor.set_image(image));

  const auto points = values_of<double>(cases, name + ".points");
  const auto labels = values_of<float>(cases, name + ".labels");
  const auto boxes = values_of<double>(cases, name + ".boxes");
  const auto mask = values_of<float>(cases, name + ".mask");
  const std::size_t size = predictor.info().image_size, side = size / 4;
  glesam::Prompts prompts;
  prompts.count = !boxes.empty() ? boxes.size() / 4 : mask.size() / (side * side);
  if (!points.empty()) {
    prompts.count = static_cast<std::size_t>(cases.at(name + ".labels").shape[0]);
    prompts.points_per_prompt = labels.size() / prompts.count;
    prompts.points = points.data();
    prompts.labels = labels.data();
  }
  if (!boxes.empty()) prompts.boxes = boxes.data();
  if (!mask.empty()) prompts.mask_input = mask.data();
  glesam::PredictParams how;
  how.multimask = flags[0] != 0;
  how.logits = how.packed = how.rle = true;
  glesam::Prediction made;
  require(predictor.predict(prompts, how, &made));

  const std::size_t b = made.count, c = made.masks_per_prompt;
  results.add(name + ".tensor", "F32", {1, 3, size, size}, tensor);
  results.add(name + ".masks", "U8", {b, c, made.height, made.width}, made.masks);
  results.add(name + ".logits", "F32", {b, c, made.height, made.width}, made.logits);
  results.add(name + ".scores", "F32", {b, c}, made.scores);
  results.add(name + ".stability", "F64", {b, c}, made.stability);
  results.add(name + ".low_res", "F32", {b, c, side, side}, made.low_res);
  results.add(name + ".packed", "U8", {b, c, made.height, (made.width + 7) / 8}, made.packed);
  results.add(name + ".areas", "I64", {b, c}, made.areas);
  std::vector<std::int64_t> tight;
  for (const glesam::Region& box : made.boxes) {
    tight.insert(tight.end(), {box.x, box.y, box.width, box.height});
  }
  results.add(name + ".boxes", "I64", {b, c, 4}, tight);
  std::vector<std::uint8_t> lines;
  for (const std::string& counts : made.rle) {
    lines.insert(lines.end(), counts.begin(), counts.end());
    lines.push_back('\n');
  }
  results.add(name + ".rle", "U8", {lines.size()}, lines);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  try {
    glesam::Params params = glesam::default_params();
    if (argc > 4) params.backend = argv[4];
    if (argc > 5) params.engine_library = argv[5];
    std::unique_ptr<glesam::Predictor> predictor;
    require(glesam::Predictor::open(argv[1], params, &predictor));
    const glesam::StoredTensors cases = glesam::read_safetensors(argv[2]);
    glesam_tests::SafetensorsWriter results;
    for (int i = 0; cases.count(std::to_string(i) + ".image") != 0; ++i) {
      run_case(*predictor, cases, std::to_string(i), results);
    }
    results.write(argv[3]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
