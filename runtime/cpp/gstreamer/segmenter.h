// The model of a running element, by the C API of the library. It knows nothing of GStreamer but the
// settings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "glesam_c.h"
#include "glesam_follow_c.h"
#include "prompt_text.h"
#include "settings.h"

namespace glesam_gst {

// An object in a frame. The pointers are valid until the next frame.
struct Object {
  bool lost = false;
  float score = 0;
  double stability = 0;
  std::int64_t area = 0;
  glesam_box box{};
  const std::uint8_t* mask = nullptr;
  const char* rle = nullptr;
};

// What is wrong: a glesam_code, and one line. The code of success is GLESAM_OK.
struct Problem {
  int code = GLESAM_OK;
  std::string message;
};

class Segmenter {
 public:
  // Reads the prompts and opens the bundle. Returns null if `problem` is set.
  static std::unique_ptr<Segmenter> open(const Settings& settings, Problem& problem);

  // Replaces the prompts. Following begins anew with the next frame. Returns what is wrong with
  // them, or "".
  std::string set_prompts(const std::string& points, const std::string& boxes);

  // Lets following begin anew with the next frame.
  void restart() { started_ = false; }

  // Finds the objects in a frame. Returns what is wrong, or null.
  //
  // follow: follow them from the frame before; else by the prompts.
  // masks: give Object::mask too.
  const char* segment(const glesam_frame& frame, bool follow, bool masks,
                      std::vector<Object>& objects);

 private:
  struct Close {
    void operator()(glesam_predictor* predictor) const { glesam_close(predictor); }
    void operator()(glesam_follower* follower) const { glesam_follow_close(follower); }
  };

  const char* prompted(const glesam_frame& frame, bool masks, std::vector<Object>& objects);
  const char* followed(const glesam_frame& frame, std::vector<Object>& objects);

  std::unique_ptr<glesam_predictor, Close> predictor_;
  std::unique_ptr<glesam_follower, Close> follower_;  // is closed first
  Prompts prompts_;
  bool started_ = false;  // whether the follower has its prompts
};

}  // namespace glesam_gst
