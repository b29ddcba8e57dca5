// Follows the objects of a safetensors file through its frames, by the C++ API and by the C API, and
// writes what it found.
// Usage: follow BUNDLE CASES RESULTS
//
// CASES: "frames" uint8 [T, H, W, 3]; "points" float64 [B, 1, 2]. Frame 0 is for start(). Before the
// last frame, object 0 is prompted anew with "again" float64 [1, 1, 2], in the frame before.
#include <cstring>
#include <filesystem>
#include <iostream>

#include "glesam_follow.h"
#include "glesam_follow_c.h"
#include "safetensors.h"
#include "safetensors_writer.h"

namespace {

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

void require(const glesam::Status& status) { require(bool(status), status.message); }

std::vector<double> doubles_of(const glesam::StoredTensors& cases, const char* name) {
  const auto& bytes = cases.at(name).bytes;
  std::vector<double> values(bytes.size() / sizeof(double));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

struct Results {
  std::vector<std::uint8_t> masks, lost;
  std::vector<double> numbers;  // score, stability, area and box of each object

  void add(const glesam::Followed& found, std::size_t pixels) {
    masks.resize(masks.size() + pixels);
    if (!found.lost) std::memcpy(masks.data() + masks.size() - pixels, found.mask.data(), pixels);
    lost.push_back(found.lost);
    numbers.insert(numbers.end(),
                   {found.score, found.stability, static_cast<double>(found.area),
                    double(found.box.x), double(found.box.y), double(found.box.width),
                    double(found.box.height)});
  }
};

glesam::Followed get(glesam_follower* follower, std::size_t number, std::size_t pixels) {
  glesam_followed object{};
  object.struct_size = sizeof object;
  require(glesam_follow_get(follower, number, &object) == GLESAM_OK,
          glesam_follow_message(follower));
  glesam::Followed found;
  found.lost = object.lost != 0;
  found.score = object.score;
  found.stability = object.stability;
  found.area = object.area;
  found.box = {object.box.x, object.box.y, object.box.width, object.box.height};
  require((object.mask == nullptr) == found.lost && (object.rle == nullptr) == found.lost,
          "mask and rle are null if the object is lost, and only then");
  if (object.mask != nullptr) found.mask.assign(object.mask, object.mask + pixels);
  return found;
}

void run(const char* bundle, const char* given, const char* written) {
  const glesam::StoredTensors cases = glesam::read_safetensors(std::filesystem::path(given));
  const glesam::StoredTensor& frames = cases.at("frames");
  const std::size_t count = frames.shape[0], height = frames.shape[1], width = frames.shape[2];
  const std::vector<double> points = doubles_of(cases, "points"), again = doubles_of(cases, "again");
  const std::vector<float> labels(points.size() / 2, 1.0F);

  std::unique_ptr<glesam::Predictor> predictor;
  glesam::Params params = glesam::default_params();
  params.backend = "openvino";
  std::unique_ptr<glesam::Predictor> other;  // another session, whose image changes nothing
  std::unique_ptr<glesam::Context> context;
  require(glesam::Context::open(bundle, params, &context));
  require(context->create_session(&predictor));
  require(context->create_session(&other));
  context.reset();
  glesam::Follower follower(*predictor, {});
  char message[512];
  glesam_params c_params = glesam_default_params();
  c_params.backend = "openvino";
  glesam_predictor* c_predictor = nullptr;
  require(glesam_open(bundle, &c_params, &c_predictor, message, sizeof message) == GLESAM_OK,
          message);
  glesam_follower* c_follower = nullptr;
  require(glesam_follow_open(c_predictor, nullptr, &c_follower) == GLESAM_OK, "glesam_follow_open");

  glesam::Prompts prompts;
  prompts.count = labels.size();
  prompts.points = points.data();
  prompts.labels = labels.data();
  prompts.points_per_prompt = 1;
  glesam_prompts c_prompts{};
  c_prompts.count = prompts.count;
  c_prompts.points = prompts.points;
  c_prompts.labels = prompts.labels;
  c_prompts.points_per_prompt = 1;

  std::vector<glesam::Followed> found;
  glesam::Frame frame;
  frame.width = static_cast<int>(width);
  frame.height = static_cast<int>(height);
  require(follower.next(frame, &found).code == glesam::Code::invalid_input, "next before start");
  Results results, c_results;
  const std::size_t pixels = height * width;
  for (std::size_t i = 0; i < count; ++i) {
    frame.planes[0] =
        reinterpret_cast<const std::uint8_t*>(frames.bytes.data()) + i * pixels * 3;
    glesam_frame c_frame{};
    c_frame.struct_size = sizeof c_frame;
    c_frame.width = frame.width;
    c_frame.height = frame.height;
    c_frame.planes[0] = frame.planes[0];
    if (i == 0) {
      require(follower.start(frame, prompts, &found));
      require(glesam_follow_start(c_follower, &c_frame, &c_prompts) == GLESAM_OK,
              glesam_follow_message(c_follower));
      require(follower.count() == prompts.count && glesam_follow_count(c_follower) == prompts.count,
              "the number of objects");
    } else {
      if (i == 5) require(other->set_image({frames.bytes.data(), frame.width, frame.height}));
      require(follower.next(frame, &found));
      require(glesam_follow_next(c_follower, &c_frame) == GLESAM_OK,
              glesam_follow_message(c_follower));
    }
    if (i + 2 == count) {
      glesam::Prompts one = prompts;
      one.count = 1;
      one.points = again.data();
      require(follower.prompt(0, one, &found[0]));
      c_prompts.count = 1;
      c_prompts.points = again.data();
      require(glesam_follow_prompt(c_follower, 0, &c_prompts) == GLESAM_OK,
              glesam_follow_message(c_follower));
    }
    for (std::size_t number = 0; number < found.size(); ++number) {
      results.add(found[number], pixels);
      c_results.add(get(c_follower, number, pixels), pixels);
    }
  }
  require(results.masks == c_results.masks && results.numbers == c_results.numbers &&
              results.lost == c_results.lost,
          "C and C++ find the same");

  glesam::Followed one;
  require(follower.prompt(99, prompts, &one).code == glesam::Code::invalid_input, "object 99");
  frame.width -= 1;
  require(follower.next(frame, &found).code == glesam::Code::invalid_input, "another size");
  require(glesam_follow_next(c_follower, nullptr) == GLESAM_INVALID_INPUT, "a null frame");
  require(glesam_follow_next(nullptr, nullptr) == GLESAM_INVALID_INPUT, "a null follower");
  glesam::FollowParams wrong;
  wrong.min_score = 2;
  glesam::Follower refused(*predictor, wrong);
  require(refused.start(frame, prompts, &found).code == glesam::Code::invalid_input, "min_score 2");
  glesam_follow_close(c_follower);
  glesam_close(c_predictor);

  glesam_tests::SafetensorsWriter out;
  out.add("masks", "U8", {count, labels.size(), height, width}, results.masks);
  out.add("lost", "U8", {count, labels.size()}, results.lost);
  out.add("numbers", "F64", {count, labels.size(), 7}, results.numbers);
  out.write(written);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: follow BUNDLE CASES RESULTS\n";
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
