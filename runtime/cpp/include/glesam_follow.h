// The C++ API for following objects through a video. The last mask of each object and its box prompt
// the next frame. glesam_runtime.Follower does the same in Python, with the same masks.
//
// Usage:
//
//     glesam::Follower follower(*predictor, {});
//     std::vector<glesam::Followed> objects;
//     status = follower.start(frame, prompts, &objects);   // prompts for the first frame
//     while (read(&frame)) {
//       status = follower.next(frame, &objects);
//       if (objects[0].lost) ...                           // look again, or prompt() it
//     }
//
// Errors, threads and ownership are those of glesam.h. A Follower uses a Predictor and the image that
// is set in it; both accept one call at a time.
#pragma once

#include "glesam.h"

namespace glesam {

// Whether the logits of the last mask are part of the prompt for the next frame, besides its box.
enum class MaskPrompt {
  automatic = 0,  // they are if the model was trained with them: start() prompts the first frame with
                  // its own masks, and asks whether they stay the same
  always = 1,
  never = 2,
};

struct FollowParams {
  double min_score = 0.6;      // an object with a lower predicted IoU is lost; 0 to 1. It is found
                               // again with 0.1 more
  double min_stability = 0.7;  // the same for the stability
  MaskPrompt mask_prompt = MaskPrompt::automatic;
};

// An object in one frame.
struct Followed {
  bool lost = true;                // whether it was not found; mask, box, area and rle are then empty
  float score = 0;                 // the IoU that the model predicts for the mask; of a lost object,
                                   // for the mask that was refused
  double stability = 0;            // see Prediction::stability
  std::vector<std::uint8_t> mask;  // [H, W]: 1 inside the mask, 0 outside
  Region box;                      // the smallest rectangle around the mask
  std::int64_t area = 0;           // pixels
  std::string rle;                 // "counts" of COCO's compressed RLE, whose "size" is [H, W]
};

// Follows one object or several through the frames of a video.
//
// An object that the model no longer finds with enough certainty is lost. The follower says so, and
// looks for it in the following frames where it was last. prompt() says where it is now. A frame with
// the same pixels as the one before is not encoded again, which changes no result.
class GLESAM_API Follower {
 public:
  // predictor: outlives the follower, and is used by nothing else meanwhile.
  Follower(Predictor& predictor, const FollowParams& params);
  ~Follower();
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;

  // Finds the objects of B prompts in a frame, and forgets those that were followed before.
  //
  // objects: receives B objects. One is lost if its mask is empty.
  // Errors: those of Predictor::set_frame and predict; invalid_input (a parameter is not from 0 to
  // 1). The objects that were followed before stay the same, though not always the predictor's image.
  Status start(const Frame& frame, const Prompts& prompts, std::vector<Followed>* objects) noexcept;

  // Finds the objects in the next frame, which must be of the same size.
  //
  // objects: receives one object for each prompt of start(), in their order.
  // Errors: those of Predictor::set_frame and predict; invalid_input (nothing was started, or the
  // frame has another size).
  Status next(const Frame& frame, std::vector<Followed>* objects) noexcept;

  // Finds an object in the last frame by a new prompt, for example because it is lost.
  //
  // number: the object, counted from 0.
  // prompts: one prompt.
  // object: receives the object.
  // Errors: invalid_input (no such object, or the prompt is wrong), backend, out_of_memory, busy.
  Status prompt(std::size_t number, const Prompts& prompts, Followed* object) noexcept;

  // Returns the number of objects.
  std::size_t count() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace glesam
