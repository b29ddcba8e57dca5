// Preprocesses the frames of a safetensors file and writes the encoder's inputs.
// Usage: frames BUNDLE CASES RESULTS
//
// Case i: "i.memory" uint8, the memory that holds the planes; "i.layout" int64 [18]: format, width,
// height, the offset of each plane's top row in the memory, three strides, region (x, y, width,
// height), matrix, range, and 1 if set_image is to run too; the rest is 0.
#include <cstring>
#include <iostream>

#include "glesam.h"
#include "safetensors.h"
#include "safetensors_writer.h"

namespace {

void require(const glesam::Status& status) {
  if (!status) throw std::runtime_error(status.message);
}

void run_case(glesam::Predictor& predictor, const glesam::StoredTensors& cases,
              const std::string& name, glesam_tests::SafetensorsWriter& results) {
  // A copy on the heap, outside of which a sanitizer sees every read.
  const std::vector<std::uint8_t> memory = cases.at(name + ".memory").bytes;
  std::int64_t layout[18];
  std::memcpy(layout, cases.at(name + ".layout").bytes.data(), sizeof layout);
  const auto whole = [&layout](int i) { return static_cast<int>(layout[i]); };
  glesam::Frame frame;
  frame.format = static_cast<glesam::Format>(layout[0]);
  frame.width = whole(1);
  frame.height = whole(2);
  for (int i = 0; i < 3; ++i) {
    frame.planes[i] = memory.data() + layout[3 + i];
    frame.strides[i] = static_cast<std::ptrdiff_t>(layout[6 + i]);
  }
  frame.region = {whole(9), whole(10), whole(11), whole(12)};
  frame.matrix = static_cast<glesam::YuvMatrix>(layout[13]);
  frame.range = static_cast<glesam::YuvRange>(layout[14]);
  std::vector<float> tensor;
  require(predictor.preprocess(frame, &tensor));
  const std::size_t size = predictor.info().image_size;
  results.add(name + ".tensor", "F32", {1, 3, size, size}, tensor);
  if (layout[15] == 0) return;
  require(predictor.set_frame(frame));
  const double box[] = {0, 0, static_cast<double>(layout[11]), static_cast<double>(layout[12])};
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
    glesam_tests::SafetensorsWriter results;
    for (int i = 0; cases.count(std::to_string(i) + ".memory") != 0; ++i) {
      run_case(*predictor, cases, std::to_string(i), results);
    }
    results.write(argv[3]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
