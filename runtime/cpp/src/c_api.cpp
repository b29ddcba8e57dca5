#include "glesam_c.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "errors.h"
#include "glesam.h"
#include "text.h"

struct glesam_predictor {
  std::unique_ptr<glesam::Predictor> predictor;
  glesam::Prediction prediction;
  std::string message;
  std::atomic_flag in_use = ATOMIC_FLAG_INIT;
};

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

// Returns a struct that begins with its size. Fields that an older caller does not know are zero.
// Throws Error (invalid_input) for a newer caller that sets fields which this library does not know.
template <typename Struct>
Struct read_sized(const Struct* given, const char* name) {
  if (given == nullptr) glesam::input_error(glesam::cat(name, ": a null pointer; pass a struct"));
  const size_t size = given->struct_size;
  // No later version can be this large, and reading that far would leave the struct.
  constexpr size_t kMost = 4096;
  if (size < sizeof(size_t) || size > kMost) {
    glesam::input_error(
        glesam::cat(name, ": struct_size is ", size, "; set it to the sizeof of the struct"));
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (size_t i = sizeof(Struct); i < size; ++i) {
    if (bytes[i] != 0) {
      glesam::input_error(glesam::cat(name, ": sets a field of a later version than ",
                                      glesam::version(), "; use a newer library"));
    }
  }
  Struct own{};
  std::memcpy(&own, given, std::min(size, sizeof own));
  return own;
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
    const glesam_frame given = read_sized(frame, "frame");
    glesam::Frame own;
    own.format = static_cast<glesam::Format>(given.format);
    own.width = given.width;
    own.height = given.height;
    for (int i = 0; i < 3; ++i) {
      own.planes[i] = given.planes[i];
      own.strides[i] = given.strides[i];
    }
    own.region = {given.region_x, given.region_y, given.region_width, given.region_height};
    own.matrix = static_cast<glesam::YuvMatrix>(given.yuv_matrix);
    own.range = static_cast<glesam::YuvRange>(given.yuv_range);
    glesam::Status status = predictor->predictor->set_frame(own);
    if (!status) throw glesam::Error(status.code, std::move(status.message));
  };
  return report(predictor, [&] { return glesam::guard(work); });
}

int glesam_predict(glesam_predictor* predictor, const glesam_prompts* prompts, int multimask,
                   glesam_result* result) {
  const auto work = [&] {
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
  };
  return report(predictor, [&] { return glesam::guard(work); });
}

const char* glesam_message(const glesam_predictor* predictor) {
  if (predictor == nullptr) return "predictor: a null pointer";
  return predictor == refused ? glesam::kBusy : predictor->message.c_str();
}

}  // extern "C"
