// The C API of predictors.
#include "c_handles.h"

namespace {

using namespace glesam;

// Predicts, and keeps the prediction in the handle if that succeeds.
const Prediction& predict(glesam_predictor& handle, const glesam_prompts& prompts,
                          const PredictParams& params) {
  Prediction made;
  require(handle.predictor->predict(prompts_of(prompts), params, &made));
  std::vector<glesam_box> boxes;
  for (const Region& box : made.boxes) {
    boxes.push_back({box.x, box.y, box.width, box.height});
  }
  std::vector<const char*> rle;
  for (const std::string& counts : made.rle) rle.push_back(counts.c_str());
  handle.boxes = std::move(boxes);
  handle.rle = std::move(rle);
  handle.prediction = std::move(made);  // moves the vector, not its strings
  return handle.prediction;
}

}  // namespace

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
    const Prediction& kept = predict(*predictor, *prompts, how);
    *result = {kept.count,         kept.masks_per_prompt, kept.height,
               kept.width,         kept.low_res_side,     kept.masks.data(),
               kept.scores.data(), kept.stability.data(), kept.low_res.data()};
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
    const glesam_request given =
        request != nullptr ? read_sized(request, "request") : glesam_request{};
    PredictParams how;
    how.multimask = given.multimask != 0;
    how.masks = given.skip_masks == 0;
    how.boxes = given.boxes != 0;
    how.packed = given.packed != 0;
    how.rle = given.rle != 0;
    how.logits = given.logits != 0;
    how.mask_buffer = given.mask_buffer;
    how.mask_buffer_size = given.mask_buffer_size;
    how.mask_stride = given.mask_stride;
    const Prediction& kept = predict(*predictor, *prompts, how);
    glesam_output own{};
    own.count = kept.count;
    own.masks_per_prompt = kept.masks_per_prompt;
    own.height = kept.height;
    own.width = kept.width;
    own.low_res_side = kept.low_res_side;
    own.masks = array_of(kept.masks);
    own.scores = array_of(kept.scores);
    own.stability = array_of(kept.stability);
    own.low_res = array_of(kept.low_res);
    own.logits = array_of(kept.logits);
    own.areas = array_of(kept.areas);
    own.boxes = array_of(predictor->boxes);
    own.packed = array_of(kept.packed);
    own.rle = array_of(predictor->rle);
    write_sized(own, output);
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

void glesam_free_features(glesam_features* features) { delete features; }

const char* glesam_message(const glesam_predictor* predictor) {
  if (predictor == nullptr) return "predictor: a null pointer";
  return predictor == refused ? kBusy : predictor->message.c_str();
}

}  // extern "C"
