#include "glesam_c.h"

#include "c_handles.h"

namespace {

std::string text_of(const char* text) { return text != nullptr ? text : ""; }

// The handle whose last call in this thread returned GLESAM_BUSY. The other thread may change the
// handle's own message, so glesam_message must not read it then.
thread_local const glesam_predictor* refused = nullptr;

// Runs `call`, which returns a Status, unless another thread uses the handle, and keeps its
// message.
template <typename Call>
int report(glesam_predictor* handle, Call&& call) {
  if (handle == nullptr) return GLESAM_INVALID_INPUT;
  if (handle->in_use.test_and_set(std::memory_order_acquire)) {
    refused = handle;
    return GLESAM_BUSY;
  }
  if (refused == handle) refused = nullptr;
  glesam::Status status = call();
  handle->message = std::move(status.message);
  handle->in_use.clear(std::memory_order_release);
  return static_cast<int>(status.code);
}

// Predicts, and keeps the prediction in the handle if that succeeds.
const glesam::Prediction& predict(glesam_predictor& handle, const glesam_prompts& prompts,
                                  const glesam::PredictParams& params) {
  glesam::Prediction made;
  glesam::Status status = handle.predictor->predict(glesam::prompts_of(prompts), params, &made);
  if (!status) throw glesam::Error(status.code, std::move(status.message));
  std::vector<glesam_box> boxes;
  for (const glesam::Region& box : made.boxes) {
    boxes.push_back({box.x, box.y, box.width, box.height});
  }
  std::vector<const char*> rle;
  for (const std::string& counts : made.rle) rle.push_back(counts.c_str());
  handle.boxes = std::move(boxes);
  handle.rle = std::move(rle);
  handle.prediction = std::move(made);  // moves the vector, not its strings
  return handle.prediction;
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

glesam_params glesam_default_params(void) {
  glesam_params params{};
  params.backend = "auto";
  return params;
}

int glesam_open(const char* bundle, const glesam_params* params, glesam_predictor** predictor,
                char* message, size_t message_size) {
  const glesam::Status status = glesam::guard([&] {
    if (bundle == nullptr) glesam::input_error("bundle: a null pointer; pass a folder");
    if (predictor == nullptr)
      glesam::input_error("predictor: a null pointer; pass a place for the result");
    const glesam_params given = params != nullptr ? *params : glesam_default_params();
    glesam::Params own = glesam::default_params();
    own.backend = text_of(given.backend);
    own.device = text_of(given.device);
    own.precision = text_of(given.precision);
    own.engine_library = text_of(given.engine_library);
    own.threads = given.threads;
    own.enhance = given.skip_enhancer == 0;
    own.max_prompt_batch = given.max_prompt_batch;
    own.limits = {given.limits.side,    given.limits.megapixels, given.limits.points,
                  given.limits.prompts, given.limits.json_mib,   given.limits.golden_mib};
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
  return report(predictor,
                [&] { return predictor->predictor->set_image({rgb, width, height, stride}); });
}

int glesam_set_frame(glesam_predictor* predictor, const glesam_frame* frame) {
  const auto work = [&] {
    glesam::require(predictor->predictor->set_frame(glesam::frame_of(frame)));
  };
  return report(predictor, [&] { return glesam::guard(work); });
}

int glesam_predict(glesam_predictor* predictor, const glesam_prompts* prompts, int multimask,
                   glesam_result* result) {
  const auto work = [&] {
    if (prompts == nullptr || result == nullptr) {
      glesam::input_error("prompts or result: a null pointer; pass both");
    }
    glesam::PredictParams how;
    how.multimask = multimask != 0;
    const glesam::Prediction& kept = predict(*predictor, *prompts, how);
    *result = {kept.count,         kept.masks_per_prompt, kept.height,
               kept.width,         kept.low_res_side,     kept.masks.data(),
               kept.scores.data(), kept.stability.data(), kept.low_res.data()};
  };
  return report(predictor, [&] { return glesam::guard(work); });
}

int glesam_predict_as(glesam_predictor* predictor, const glesam_prompts* prompts,
                      const glesam_request* request, glesam_output* output) {
  const auto work = [&] {
    if (prompts == nullptr || output == nullptr) {
      glesam::input_error("prompts or output: a null pointer; pass both");
    }
    glesam::check_size(output->struct_size, "output");
    const glesam_request given =
        request != nullptr ? glesam::read_sized(request, "request") : glesam_request{};
    glesam::PredictParams how;
    how.multimask = given.multimask != 0;
    how.masks = given.skip_masks == 0;
    how.boxes = given.boxes != 0;
    how.packed = given.packed != 0;
    how.rle = given.rle != 0;
    how.logits = given.logits != 0;
    how.mask_buffer = given.mask_buffer;
    how.mask_buffer_size = given.mask_buffer_size;
    how.mask_stride = given.mask_stride;
    const glesam::Prediction& kept = predict(*predictor, *prompts, how);
    glesam_output own{};
    own.count = kept.count;
    own.masks_per_prompt = kept.masks_per_prompt;
    own.height = kept.height;
    own.width = kept.width;
    own.low_res_side = kept.low_res_side;
    own.masks = glesam::array_of(kept.masks);
    own.scores = glesam::array_of(kept.scores);
    own.stability = glesam::array_of(kept.stability);
    own.low_res = glesam::array_of(kept.low_res);
    own.logits = glesam::array_of(kept.logits);
    own.areas = glesam::array_of(kept.areas);
    own.boxes = glesam::array_of(predictor->boxes);
    own.packed = glesam::array_of(kept.packed);
    own.rle = glesam::array_of(predictor->rle);
    glesam::write_sized(own, output);
  };
  return report(predictor, [&] { return glesam::guard(work); });
}

int glesam_get_features(glesam_predictor* predictor, glesam_features** features) {
  const auto work = [&] {
    if (features == nullptr) {
      glesam::input_error("features: a null pointer; pass a place for the result");
    }
    auto made = std::make_unique<glesam_features>();
    glesam::Status status = predictor->predictor->get_features(&made->features);
    if (!status) throw glesam::Error(status.code, std::move(status.message));
    *features = made.release();
  };
  return report(predictor, [&] { return glesam::guard(work); });
}

int glesam_set_features(glesam_predictor* predictor, const glesam_features* features) {
  const auto work = [&] {
    if (features == nullptr) glesam::input_error("features: a null pointer; pass features");
    glesam::Status status = predictor->predictor->set_features(features->features);
    if (!status) throw glesam::Error(status.code, std::move(status.message));
  };
  return report(predictor, [&] { return glesam::guard(work); });
}

void glesam_free_features(glesam_features* features) { delete features; }

const char* glesam_message(const glesam_predictor* predictor) {
  if (predictor == nullptr) return "predictor: a null pointer";
  return predictor == refused ? glesam::kBusy : predictor->message.c_str();
}

}  // extern "C"
