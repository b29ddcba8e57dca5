// The C API of predictors.
#include "c_handles.h"

using namespace glesam;

namespace {

// Predicts, and keeps the prediction in the handle if that succeeds.
const glesam_kept& predict(glesam_predictor& handle, const glesam_prompts& prompts,
                           const PredictParams& params) {
  Prediction made;
  require(handle.predictor->predict(prompts_of(prompts), params, &made));
  handle.kept = std::make_unique<const glesam_kept>(std::move(made));
  return *handle.kept;
}

}  // namespace

glesam_kept::glesam_kept(Prediction made) : prediction(std::move(made)) {
  for (const Region& box : prediction.boxes) {
    boxes.push_back({box.x, box.y, box.width, box.height});
  }
  for (const std::string& counts : prediction.rle) rle.push_back(counts.c_str());
  for (const std::vector<Ring>& rings : prediction.polygons) {
    ring_counts.push_back(rings.size());
    for (const Ring& ring : rings) {
      ring_sizes.push_back(ring.size());
      for (const Corner& corner : ring) corners.insert(corners.end(), {corner.x, corner.y});
    }
  }
}

glesam_output glesam_kept::output() const {
  glesam_output own{};
  own.count = prediction.count;
  own.masks_per_prompt = prediction.masks_per_prompt;
  own.height = prediction.height;
  own.width = prediction.width;
  own.low_res_side = prediction.low_res_side;
  own.masks = array_of(prediction.masks);
  own.scores = array_of(prediction.scores);
  own.stability = array_of(prediction.stability);
  own.low_res = array_of(prediction.low_res);
  own.logits = array_of(prediction.logits);
  own.areas = array_of(prediction.areas);
  own.boxes = array_of(boxes);
  own.packed = array_of(prediction.packed);
  own.rle = array_of(rle);
  own.ring_counts = array_of(ring_counts);
  own.ring_sizes = array_of(ring_sizes);
  own.polygon_corners = array_of(corners);
  return own;
}

namespace glesam {

Prompts prompts_of(const glesam_prompts& given) {
  Prompts own;
  own.count = given.count;
  own.points = given.points;
  own.labels = given.labels;
  own.points_per_prompt = given.points_per_prompt;
  own.boxes = given.boxes;
  own.mask_input = given.mask_input;
  return own;
}

PredictParams params_of(const glesam_request* request) {
  const glesam_request given =
      request != nullptr ? read_sized(request, "request") : glesam_request{};
  PredictParams how;
  how.multimask = given.multimask != 0;
  how.masks = given.skip_masks == 0;
  how.boxes = given.boxes != 0;
  how.packed = given.packed != 0;
  how.rle = given.rle != 0;
  how.logits = given.logits != 0;
  how.polygons = given.polygons != 0;
  how.mask_buffer = given.mask_buffer;
  how.mask_buffer_size = given.mask_buffer_size;
  how.mask_stride = given.mask_stride;
  return how;
}

Frame frame_of(const glesam_frame* frame) {
  const glesam_frame given = read_sized(frame, "frame");
  Frame own;
  own.format = static_cast<Format>(given.format);
  own.width = given.width;
  own.height = given.height;
  for (int i = 0; i < 3; ++i) {
    own.planes[i] = given.planes[i];
    own.strides[i] = given.strides[i];
  }
  own.region = {given.region_x, given.region_y, given.region_width, given.region_height};
  own.matrix = static_cast<YuvMatrix>(given.yuv_matrix);
  own.range = static_cast<YuvRange>(given.yuv_range);
  own.memory = static_cast<Memory>(given.memory);
  own.stream = given.stream;
  return own;
}

}  // namespace glesam

extern "C" {

void glesam_close(glesam_predictor* predictor) { delete predictor; }

int glesam_share(const glesam_predictor* predictor, glesam_predictor** session, char* message,
                 size_t message_size) {
  const Status status = guard([&] {
    if (predictor == nullptr) input_error("predictor: a null pointer; pass a predictor");
    if (session == nullptr) input_error("session: a null pointer; pass a place for the result");
    auto handle = std::make_unique<glesam_predictor>();
    require(predictor->predictor->share(&handle->predictor));
    *session = handle.release();
  });
  return said(status, message, message_size);
}

int glesam_set_image(glesam_predictor* predictor, const uint8_t* rgb, int width, int height,
                     size_t stride) {
  return report(predictor,
                [&] { return predictor->predictor->set_image({rgb, width, height, stride}); });
}

int glesam_set_frame(glesam_predictor* predictor, const glesam_frame* frame) {
  const auto work = [&] {
    require(predictor->predictor->set_frame(frame_of(frame)));
  };
  return report(predictor, [&] { return guard(work); });
}

int glesam_predict(glesam_predictor* predictor, const glesam_prompts* prompts, int multimask,
                   glesam_result* result) {
  const auto work = [&] {
    if (prompts == nullptr || result == nullptr) {
      input_error("prompts or result: a null pointer; pass both");
    }
    PredictParams how;
    how.multimask = multimask != 0;
    const Prediction& made = predict(*predictor, *prompts, how).prediction;
    *result = {made.count,         made.masks_per_prompt, made.height,
               made.width,         made.low_res_side,     made.masks.data(),
               made.scores.data(), made.stability.data(), made.low_res.data()};
  };
  return report(predictor, [&] { return guard(work); });
}

int glesam_predict_as(glesam_predictor* predictor, const glesam_prompts* prompts,
                      const glesam_request* request, glesam_output* output) {
  const auto work = [&] {
    if (prompts == nullptr || output == nullptr) {
      input_error("prompts or output: a null pointer; pass both");
    }
    check_size(output->struct_size, "output");
    write_sized(predict(*predictor, *prompts, params_of(request)).output(), output);
  };
  return report(predictor, [&] { return guard(work); });
}

int glesam_get_decision(glesam_predictor* predictor, glesam_decision* decision) {
  const auto work = [&] {
    if (decision == nullptr) input_error("decision: a null pointer; pass a place for the result");
    check_size(decision->struct_size, "decision");
    Decision made;
    require(predictor->predictor->decision(&made));
    glesam_decision own{};
    own.enhanced = made.enhanced ? 1 : 0;
    own.estimated = made.estimated ? 1 : 0;
    own.estimate = made.estimate;
    write_sized(own, decision);
  };
  return report(predictor, [&] { return guard(work); });
}

int glesam_get_features(glesam_predictor* predictor, glesam_features** features) {
  const auto work = [&] {
    if (features == nullptr) {
      input_error("features: a null pointer; pass a place for the result");
    }
    auto made = std::make_unique<glesam_features>();
    require(predictor->predictor->get_features(&made->features));
    *features = made.release();
  };
  return report(predictor, [&] { return guard(work); });
}

int glesam_set_features(glesam_predictor* predictor, const glesam_features* features) {
  const auto work = [&] {
    if (features == nullptr) input_error("features: a null pointer; pass features");
    require(predictor->predictor->set_features(features->features));
  };
  return report(predictor, [&] { return guard(work); });
}

int glesam_encode(glesam_predictor* predictor, const glesam_frame* const* frames, size_t count,
                  glesam_features** features) {
  const auto work = [&] {
    if (frames == nullptr || features == nullptr) {
      input_error("frames or features: a null pointer; pass both");
    }
    std::vector<Frame> own;
    if (count == 0) input_error("frames: none; pass at least one");
    for (size_t i = 0; i < count; ++i) {
      if (frames[i] == nullptr) input_error(cat("frame ", i, ": a null pointer; pass a struct"));
      own.push_back(frame_of(frames[i]));
    }
    std::vector<Features> made;
    require(predictor->predictor->encode(own.data(), count, &made));
    std::vector<std::unique_ptr<glesam_features>> handles;
    for (Features& each : made) {
      handles.push_back(std::make_unique<glesam_features>(glesam_features{std::move(each)}));
    }
    for (size_t i = 0; i < count; ++i) features[i] = handles[i].release();
  };
  return report(predictor, [&] { return guard(work); });
}

void glesam_free_features(glesam_features* features) { delete features; }

const char* glesam_message(const glesam_predictor* predictor) {
  if (predictor == nullptr) return "predictor: a null pointer";
  return predictor == refused ? kBusy : predictor->message.c_str();
}

}  // extern "C"
