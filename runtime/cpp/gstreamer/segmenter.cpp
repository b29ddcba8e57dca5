#include "segmenter.h"

namespace glesam_gst {
namespace {

glesam_prompts view_of(const Prompts& prompts) {
  glesam_prompts view{};
  view.count = prompts.count;
  if (!prompts.points.empty()) {
    view.points = prompts.points.data();
    view.labels = prompts.labels.data();
    view.points_per_prompt = prompts.points_per_prompt;
  }
  if (!prompts.boxes.empty()) view.boxes = prompts.boxes.data();
  return view;
}

// Opens the bundle and creates a session, which keeps the model loaded.
glesam_predictor* session_of(const Settings& settings, Problem& problem) {
  glesam_options options{};
  options.struct_size = sizeof options;
  options.params = glesam_default_params();
  options.params.backend = settings.backend.c_str();
  options.params.device = settings.device.c_str();
  options.params.engine_library = settings.engine_library.c_str();
  options.params.threads = settings.threads;
  options.params.skip_enhancer = settings.enhance == Enhance::never ? 1 : 0;
  options.gate =
      settings.enhance == Enhance::automatic ? GLESAM_GATE_IF_PRESENT : GLESAM_GATE_IGNORED;
  glesam_context* context = nullptr;
  glesam_predictor* session = nullptr;
  char message[2048] = "";
  problem.code = glesam_context_open(settings.bundle.c_str(), &options, &context, message, sizeof message);
  if (problem.code == GLESAM_OK) {
    problem.code = glesam_session_create(context, &session, message, sizeof message);
  }
  glesam_context_close(context);
  problem.message = message;
  return session;
}

}  // namespace

std::unique_ptr<Segmenter> Segmenter::open(const Settings& settings, Problem& problem) {
  auto made = std::make_unique<Segmenter>();
  problem.message = settings.bundle.empty() ? "bundle: not set; set bundle=FOLDER"
                                            : made->set_prompts(settings.points, settings.boxes);
  if (!problem.message.empty()) {
    problem.code = GLESAM_INVALID_INPUT;
    return nullptr;
  }
  made->predictor_.reset(session_of(settings, problem));
  if (problem.code != GLESAM_OK) return nullptr;
  glesam_follow_params how{};
  how.struct_size = sizeof how;
  how.min_score = settings.min_score;
  how.min_stability = settings.min_stability;
  glesam_follower* follower = nullptr;
  problem.code = glesam_follow_open(made->predictor_.get(), &how, &follower);
  made->follower_.reset(follower);
  if (problem.code == GLESAM_OK) return made;
  problem.message = "the follower cannot be created";
  return nullptr;
}

std::string Segmenter::set_prompts(const std::string& points, const std::string& boxes) {
  started_ = false;
  return read_prompts(points, boxes, prompts_);
}

const char* Segmenter::segment(const glesam_frame& frame, bool follow, bool masks,
                               std::vector<Object>& objects) {
  if (follow) return followed(frame, objects);
  started_ = false;
  return prompted(frame, masks, objects);
}

const char* Segmenter::prompted(const glesam_frame& frame, bool masks,
                                std::vector<Object>& objects) {
  glesam_predictor* predictor = predictor_.get();
  if (glesam_set_frame(predictor, &frame) != GLESAM_OK) return glesam_message(predictor);
  const glesam_prompts prompts = view_of(prompts_);
  glesam_request request{};
  request.struct_size = sizeof request;
  request.skip_masks = masks ? 0 : 1;
  request.rle = 1;
  glesam_output found{};
  found.struct_size = sizeof found;
  if (glesam_predict_as(predictor, &prompts, &request, &found) != GLESAM_OK) {
    return glesam_message(predictor);
  }
  for (std::size_t i = 0; i < found.count; ++i) {
    const std::uint8_t* mask = masks ? found.masks + i * found.height * found.width : nullptr;
    objects.push_back({false, found.scores[i], found.stability[i], found.areas[i], found.boxes[i],
                       mask, found.rle[i]});
  }
  return nullptr;
}

const char* Segmenter::followed(const glesam_frame& frame, std::vector<Object>& objects) {
  glesam_follower* follower = follower_.get();
  const glesam_prompts prompts = view_of(prompts_);
  const int code = started_ ? glesam_follow_next(follower, &frame)
                            : glesam_follow_start(follower, &frame, &prompts);
  if (code != GLESAM_OK) return glesam_follow_message(follower);
  started_ = true;
  for (std::size_t i = 0; i < glesam_follow_count(follower); ++i) {
    glesam_followed found{};
    found.struct_size = sizeof found;
    if (glesam_follow_get(follower, i, &found) != GLESAM_OK) return glesam_follow_message(follower);
    objects.push_back({found.lost != 0, found.score, found.stability, found.area, found.box,
                       found.mask, found.rle});
  }
  return nullptr;
}

}  // namespace glesam_gst
