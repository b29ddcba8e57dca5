// The C API for ending calls early and for calls that do not wait, and of everything-mode.
#include "c_handles.h"

using namespace glesam;

namespace {

glesam_everything c_defaults() {
  const EverythingParams own;
  glesam_everything params{};
  params.points_per_side = own.points_per_side;
  params.points_per_batch = own.points_per_batch;
  params.pred_iou_thresh = params.stability_score_thresh = params.stability_score_offset = -1;
  params.box_nms_thresh = own.box_nms_thresh;
  params.crop_n_layers = own.crop_n_layers;
  params.crop_nms_thresh = own.crop_nms_thresh;
  params.crop_overlap_ratio = own.crop_overlap_ratio;
  params.crop_n_points_downscale_factor = own.crop_n_points_downscale_factor;
  params.min_mask_region_area = own.min_mask_region_area;
  return params;
}

EverythingParams params_of(const glesam_everything* given) {
  EverythingParams own;
  if (given == nullptr) return own;
  const glesam_everything read = read_sized(given, "params");
  const auto threshold = [](double value) {
    return value == -1 ? std::optional<double>() : std::optional<double>(value);
  };
  own.points_per_side = read.points_per_side;
  own.points_per_batch = read.points_per_batch;
  own.pred_iou_thresh = threshold(read.pred_iou_thresh);
  own.stability_score_thresh = threshold(read.stability_score_thresh);
  own.stability_score_offset = threshold(read.stability_score_offset);
  own.box_nms_thresh = read.box_nms_thresh;
  own.crop_n_layers = read.crop_n_layers;
  own.crop_nms_thresh = read.crop_nms_thresh;
  own.crop_overlap_ratio = read.crop_overlap_ratio;
  own.crop_n_points_downscale_factor = read.crop_n_points_downscale_factor;
  own.min_mask_region_area = read.min_mask_region_area;
  own.masks = read.masks != 0;
  return own;
}

glesam_box box_of(const Region& region) {
  return {region.x, region.y, region.width, region.height};
}

}  // namespace

extern "C" {

int glesam_reset_image(glesam_predictor* predictor) {
  return report(predictor, [&] { return predictor->predictor->reset_image(); });
}

void glesam_cancel(glesam_predictor* predictor) {
  if (predictor != nullptr) predictor->predictor->cancel();
}

int glesam_set_timeout(glesam_predictor* predictor, double seconds) {
  return report(predictor, [&] { return predictor->predictor->set_timeout(seconds); });
}

int glesam_segment_async(glesam_predictor* predictor, const glesam_frame* frame,
                         const glesam_prompts* prompts, const glesam_request* request,
                         glesam_done done, void* user) {
  bool started = false;
  const auto work = [&] {
    if (prompts == nullptr) input_error("prompts: a null pointer; pass prompts");
    if (done == nullptr) input_error("done: a null pointer; pass a function");
    const Frame own = frame != nullptr ? frame_of(frame) : Frame();
    const auto finish = [predictor, done, user](Status status, Prediction result) {
      glesam_output output{};
      if (status) {
        Status kept = guard([&] {
          predictor->kept = std::make_unique<const glesam_kept>(std::move(result));
          output = predictor->kept->output();
          output.struct_size = sizeof output;
        });
        status = std::move(kept);
      }
      const std::string message = status.message;
      predictor->message = std::move(status.message);
      predictor->in_use.clear(std::memory_order_release);
      done(user, static_cast<int>(status.code), message.c_str(), status ? &output : nullptr);
    };
    require(predictor->predictor->segment_async(frame != nullptr ? &own : nullptr,
                                                prompts_of(*prompts), params_of(request), finish));
    started = true;
  };
  return report(predictor, [&] { return guard(work); }, &started);
}

int glesam_default_everything(glesam_everything* params) {
  return static_cast<int>(guard([&] {
                            if (params == nullptr) input_error("params: a null pointer");
                            check_size(params->struct_size, "params");
                            write_sized(c_defaults(), params);
                          }).code);
}

int glesam_segment_everything(glesam_predictor* predictor, const glesam_frame* frame,
                              const glesam_everything* params, size_t* count) {
  const auto work = [&] {
    if (count == nullptr) input_error("count: a null pointer; pass a place for the result");
    std::vector<Record> found;
    require(predictor->predictor->segment_everything(frame_of(frame), params_of(params), &found));
    predictor->records = std::move(found);
    *count = predictor->records.size();
  };
  return report(predictor, [&] { return guard(work); });
}

int glesam_get_record(glesam_predictor* predictor, size_t index, glesam_record* record) {
  const auto work = [&] {
    if (record == nullptr) input_error("record: a null pointer; pass a place for the result");
    check_size(record->struct_size, "record");
    const std::vector<Record>& records = predictor->records;
    if (index >= records.size()) {
      input_error(cat("record ", index, ": there are ", records.size()));
    }
    const Record& found = records[index];
    glesam_record own{};
    own.rle = found.rle.c_str();
    own.mask = found.mask.empty() ? nullptr : found.mask.data();
    own.area = found.area;
    own.bbox = box_of(found.bbox);
    own.predicted_iou = found.predicted_iou;
    own.stability_score = found.stability_score;
    own.point_x = found.point_x;
    own.point_y = found.point_y;
    own.crop_box = box_of(found.crop_box);
    write_sized(own, record);
  };
  return report(predictor, [&] { return guard(work); });
}

}  // extern "C"
