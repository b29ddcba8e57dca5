#include "glesam_follow_c.h"

#include <atomic>

#include "c_handles.h"
#include "glesam_follow.h"

struct glesam_follower {
  glesam_follower(glesam::Predictor& predictor, const glesam::FollowParams& params)
      : follower(predictor, params) {}

  glesam::Follower follower;
  std::vector<glesam::Followed> objects;  // of the last frame
  std::string message;
  std::atomic_flag in_use = ATOMIC_FLAG_INIT;
};

namespace {

// Runs work(), which throws, unless another thread uses the follower, and keeps its message.
template <typename Work>
int report(glesam_follower* handle, Work&& work) {
  if (handle == nullptr) return GLESAM_INVALID_INPUT;
  if (handle->in_use.test_and_set(std::memory_order_acquire)) return GLESAM_BUSY;
  glesam::Status status = glesam::guard(work);
  handle->message = std::move(status.message);
  handle->in_use.clear(std::memory_order_release);
  return static_cast<int>(status.code);
}

const glesam_prompts& given(const glesam_prompts* prompts) {
  if (prompts == nullptr) glesam::input_error("prompts: a null pointer; pass prompts");
  return *prompts;
}

}  // namespace

extern "C" {

int glesam_follow_open(glesam_predictor* predictor, const glesam_follow_params* params,
                       glesam_follower** follower) {
  const glesam::Status status = glesam::guard([&] {
    if (predictor == nullptr || follower == nullptr) {
      glesam::input_error("predictor or follower: a null pointer; pass both");
    }
    glesam::FollowParams own;
    if (params != nullptr) {
      const glesam_follow_params read = glesam::read_sized(params, "params");
      if (read.min_score != 0) own.min_score = read.min_score;
      if (read.min_stability != 0) own.min_stability = read.min_stability;
      own.mask_prompt = static_cast<glesam::MaskPrompt>(read.mask_prompt);
    }
    *follower = std::make_unique<glesam_follower>(*predictor->predictor, own).release();
  });
  return static_cast<int>(status.code);
}

void glesam_follow_close(glesam_follower* follower) { delete follower; }

int glesam_follow_start(glesam_follower* follower, const glesam_frame* frame,
                        const glesam_prompts* prompts) {
  return report(follower, [&] {
    const glesam::Prompts own = glesam::prompts_of(given(prompts));
    glesam::require(
        follower->follower.start(glesam::frame_of(frame), own, &follower->objects));
  });
}

int glesam_follow_next(glesam_follower* follower, const glesam_frame* frame) {
  return report(follower, [&] {
    glesam::require(follower->follower.next(glesam::frame_of(frame), &follower->objects));
  });
}

int glesam_follow_prompt(glesam_follower* follower, size_t number, const glesam_prompts* prompts) {
  return report(follower, [&] {
    glesam::Followed found;
    const glesam::Prompts own = glesam::prompts_of(given(prompts));
    glesam::require(follower->follower.prompt(number, own, &found));
    follower->objects.at(number) = std::move(found);
  });
}

size_t glesam_follow_count(const glesam_follower* follower) {
  return follower == nullptr ? 0 : follower->objects.size();
}

int glesam_follow_get(glesam_follower* follower, size_t number, glesam_followed* object) {
  return report(follower, [&] {
    if (object == nullptr) glesam::input_error("object: a null pointer; pass a place for the result");
    glesam::check_size(object->struct_size, "object");
    const size_t count = follower->objects.size();
    if (number >= count) {
      glesam::input_error(
          glesam::cat("object ", number, ": there are ", count, ", counted from 0"));
    }
    const glesam::Followed& found = follower->objects[number];
    glesam_followed own{};
    own.lost = found.lost ? 1 : 0;
    own.score = found.score;
    own.stability = found.stability;
    own.area = found.area;
    own.box = {found.box.x, found.box.y, found.box.width, found.box.height};
    own.mask = glesam::array_of(found.mask);
    own.rle = found.lost ? nullptr : found.rle.c_str();
    glesam::write_sized(own, object);
  });
}

const char* glesam_follow_message(const glesam_follower* follower) {
  return follower == nullptr ? "follower: a null pointer" : follower->message.c_str();
}

}  // extern "C"
