// Prints everything-mode's records of raw RGB images, and the polygons of one mask, for
// test_everything.py.
// Usage: everything BUNDLE IMAGE WIDTH HEIGHT NAME=VALUE ...
//        everything --polygons BUNDLE IMAGE WIDTH HEIGHT X0 Y0 X1 Y1
#include "glesam_everything.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>

namespace {

std::unique_ptr<glesam::Predictor> predictor;
std::vector<char> pixels;
glesam::Frame frame;

int failed(const glesam::Status& status) {
  std::fprintf(stderr, "%s\n", status.message.c_str());
  return 2;
}

glesam::Status open(const char* bundle, const char* path, const char* width, const char* height) {
  std::ifstream file(path, std::ios::binary);
  pixels.assign(std::istreambuf_iterator<char>(file), {});
  frame.width = std::atoi(width);
  frame.height = std::atoi(height);
  frame.planes[0] = reinterpret_cast<const std::uint8_t*>(pixels.data());
  return glesam::Predictor::open(bundle, glesam::default_params(), &predictor);
}

void print(const glesam::Region& box) {
  std::printf(" %d %d %d %d", box.x, box.y, box.width, box.height);
}

int everything(const std::map<std::string, double>& given) {
  glesam::EverythingParams params;
  params.masks = true;
  for (const auto& [name, value] : given) {
    const int whole = static_cast<int>(value);
    if (name == "points_per_side") params.points_per_side = whole;
    if (name == "points_per_batch") params.points_per_batch = whole;
    if (name == "pred_iou_thresh") params.pred_iou_thresh = value;
    if (name == "stability_score_thresh") params.stability_score_thresh = value;
    if (name == "stability_score_offset") params.stability_score_offset = value;
    if (name == "box_nms_thresh") params.box_nms_thresh = value;
    if (name == "crop_n_layers") params.crop_n_layers = whole;
    if (name == "crop_nms_thresh") params.crop_nms_thresh = value;
    if (name == "crop_overlap_ratio") params.crop_overlap_ratio = value;
    if (name == "crop_n_points_downscale_factor") params.crop_n_points_downscale_factor = whole;
    if (name == "min_mask_region_area") params.min_mask_region_area = whole;
  }
  std::vector<glesam::Record> records;
  const glesam::Status status = predictor->segment_everything(frame, params, &records);
  if (!status) return failed(status);
  for (const glesam::Record& record : records) {
    std::int64_t area = 0;
    for (const std::uint8_t pixel : record.mask) area += pixel;
    if (area != record.area) return 3;
    std::printf("%s %" PRId64, record.rle.c_str(), record.area);
    print(record.bbox);
    print(record.crop_box);
    std::printf(" %.17g %.17g %.17g %.17g\n", record.predicted_iou, record.stability_score,
                record.point_x, record.point_y);
  }
  return 0;
}

int polygons(char** box) {
  double corners[4];
  for (int i = 0; i < 4; ++i) corners[i] = std::atof(box[i]);
  glesam::Prompts prompts;
  prompts.boxes = corners;
  glesam::PredictParams how;
  how.polygons = how.rle = true;
  how.masks = false;
  glesam::Prediction result;
  glesam::Status status = predictor->set_frame(frame);
  if (status) status = predictor->predict(prompts, how, &result);
  if (!status) return failed(status);
  std::printf("%s\n", result.rle[0].c_str());
  for (const glesam::Ring& ring : result.polygons[0]) {
    for (const glesam::Corner& corner : ring) std::printf("%d %d ", corner.x, corner.y);
    std::printf("\n");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const bool outlines = argc == 10 && std::strcmp(argv[1], "--polygons") == 0;
  if (argc < 5) return 2;
  char** const from = argv + (outlines ? 2 : 1);
  const glesam::Status status = open(from[0], from[1], from[2], from[3]);
  if (!status) return failed(status);
  if (outlines) return polygons(argv + 6);
  std::map<std::string, double> given;
  for (int i = 5; i < argc; ++i) {
    const char* value = std::strchr(argv[i], '=');
    if (value != nullptr) given[std::string(argv[i], static_cast<std::size_t>(value - argv[i]))] = std::atof(value + 1);
  }
  return everything(given);
}
