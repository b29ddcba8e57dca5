#include "glesam_c.h"

#include <algorithm>
#include <cstring>

#include "errors.h"
#include "glesam.h"

struct glesam_predictor {
  std::unique_ptr<glesam::Predictor> predictor;
  glesam::Prediction prediction;
  std::string message;
};

namespace {

std::string text_of(const char* text) { return text != nullptr ? text : ""; }

int report(glesam_predictor* handle, glesam::Status status) {
  handle->message = std::move(status.message);
  return static_cast<int>(status.code);
}

// Copies a text and cuts it to `size` bytes with the final zero, but never inside a character of
// UTF-8.
void copy_cut(const std::string& text, char* into, size_t size) {
  if (into == nullptr || size == 0) return;
  size_t length = std::min(text.size(), size - 1);
  while (length < text.size() && length > 0 && (text[length] & 0xc0) == 0x80) --length;
  std::memcpy(into, text.data(), length);
  into[length] = '\0';
}

}  // namespace

extern "C" {

const char* glesam_version(void) { return glesam::version(); }

glesam_params glesam_default_params(void) { return {"auto", nullptr, nullptr, nullptr, 0, 1}; }

int glesam_open(const char* bundle, const glesam_params* params, glesam_predictor** predictor,
                char* message, size_t message_size) {
  const glesam::Status status = glesam::guard([&] {
    if (bundle == nullptr) glesam::input_error("bundle: a null pointer; pass a folder");
    if (predictor == nullptr)
      glesam::input_error("predictor: a null pointer; pass a place for the result");
    const glesam_params given = params != nullptr ? *params : glesam_default_params();
    const glesam::Params own{
        text_of(given.backend),        text_of(given.device), text_of(given.precision),
        text_of(given.engine_library), given.threads,         given.enhance != 0};
    auto handle = std::make_unique<glesam_predictor>();
    glesam::Status opened = glesam::Predictor::open(bundle, own, &handle->predictor);
    if (!opened) throw glesam::Error(opened.code, std::move(opened.message));
    *predictor = handle.release();
  });
  copy_cut(status.message, message, message_size);
  return static_cast<int>(status.code);
}

void glesam_close(glesam_predictor* predictor) { delete predictor; }

int glesam_set_image(glesam_predictor* predictor, const uint8_t* rgb, int width, int height,
                     size_t stride) {
  if (predictor == nullptr) return GLESAM_INVALID_INPUT;
  return report(predictor, predictor->predictor->set_image({rgb, width, height, stride}));
}

int glesam_predict(glesam_predictor* predictor, const glesam_prompts* prompts, int multimask,
                   glesam_result* result) {
  if (predictor == nullptr) return GLESAM_INVALID_INPUT;
  return report(predictor, glesam::guard([&] {
                  if (prompts == nullptr || result == nullptr) {
                    glesam::input_error("prompts or result: a null pointer; pass both");
                  }
                  glesam::Prompts own;
                  own.count = prompts->count;
                  own.points = prompts->points;
                  own.labels = prompts->labels;
                  own.points_per_prompt = prompts->points_per_prompt;
                  own.boxes = prompts->boxes;
                  own.mask_input = prompts->mask_input;
                  glesam::PredictParams how;
                  how.multimask = multimask != 0;
                  glesam::Prediction made;
                  glesam::Status status = predictor->predictor->predict(own, how, &made);
                  if (!status) throw glesam::Error(status.code, std::move(status.message));
                  predictor->prediction = std::move(made);
                  const glesam::Prediction& kept = predictor->prediction;
                  *result = {kept.count,         kept.masks_per_prompt, kept.height,
                             kept.width,         kept.low_res_side,     kept.masks.data(),
                             kept.scores.data(), kept.stability.data(), kept.low_res.data()};
                }));
}

const char* glesam_message(const glesam_predictor* predictor) {
  return predictor != nullptr ? predictor->message.c_str() : "predictor: a null pointer";
}

}  // extern "C"
