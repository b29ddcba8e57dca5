// runtime/glesam_runtime/follow.py does the same.
#include "glesam_follow.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>

#include "errors.h"
#include "frame.h"
#include "text.h"

namespace glesam {
namespace {

// An object's own mask as a prompt must give a mask of at least this IoU, or the model was not
// trained with such prompts.
constexpr double kSameMask = 0.7;
// A lost object is found again with at least this much more score and stability, so that an object
// beside it is not taken for it.
constexpr double kRegain = 0.1;
// The box that looks for a lost object exceeds its last box by this share of the width and height on
// each side.
constexpr double kWider = 0.5;

// What is known about an object from the last frame in which it was found.
struct Remembered {
  Region box;
  std::vector<float> low_res;  // [S/4, S/4]
  bool lost = false;           // in the last frame
};

struct Found {
  Followed followed;
  std::vector<float> low_res;
};

double iou(const std::vector<std::uint8_t>& one, const std::vector<std::uint8_t>& other) {
  std::int64_t both = 0, either = 0;
  for (std::size_t i = 0; i < one.size(); ++i) {
    both += one[i] & other[i];
    either += one[i] | other[i];
  }
  return either == 0 ? 1.0 : static_cast<double>(both) / static_cast<double>(either);
}

// Prompts that own their arrays.
struct OwnPrompts {
  std::vector<double> boxes;
  std::vector<float> masks;

  void add(const Remembered& memory, bool with_mask) {
    const Region& box = memory.box;
    const double share = memory.lost ? kWider : 0.0;
    const double across = share * box.width, down = share * box.height;
    boxes.insert(boxes.end(), {box.x - across, box.y - down, box.x + box.width + across,
                               box.y + box.height + down});
    if (with_mask) masks.insert(masks.end(), memory.low_res.begin(), memory.low_res.end());
  }

  Prompts view() const {
    Prompts prompts;
    prompts.count = boxes.size() / 4;
    prompts.boxes = boxes.data();
    if (!masks.empty()) prompts.mask_input = masks.data();
    return prompts;
  }
};

// The bytes of a frame and what they mean.
struct Picture {
  Frame layout;
  std::vector<std::uint8_t> bytes;

  bool same_size(const Frame& frame) const {
    const Region& mine = layout.region;
    const Region& theirs = frame.region;
    return layout.width == frame.width && layout.height == frame.height && mine.x == theirs.x &&
           mine.y == theirs.y && mine.width == theirs.width && mine.height == theirs.height;
  }
  bool same_layout(const Frame& frame) const {
    return same_size(frame) && layout.format == frame.format && layout.matrix == frame.matrix &&
           layout.range == frame.range && layout.memory == frame.memory;
  }
};

void require(Status status) {
  if (!status) throw Error(status.code, std::move(status.message));
}

}  // namespace

struct Follower::State {
  Predictor& predictor;
  FollowParams params;
  std::atomic_flag in_use = ATOMIC_FLAG_INIT;
  std::optional<Picture> last;
  Features features;  // those of `last`
  bool with_mask = false;
  std::vector<std::optional<Remembered>> objects;  // empty: never found

  State(Predictor& used, const FollowParams& given) : predictor(used), params(given) {}

  void set(const Frame& frame);
  std::vector<Found> decode(const Prompts& prompts);
  Followed lose(std::size_t number, const Followed& refused);
  Followed accept(std::size_t number, Found found);
  Followed judge(std::size_t number, Found found);
  bool takes_masks(const std::vector<Followed>& first);
  std::vector<Followed> start(const Frame& frame, const Prompts& prompts);
  std::vector<Followed> next(const Frame& frame);
  Followed prompt(std::size_t number, const Prompts& prompts);
  void check() const;
};

void Follower::State::check() const {
  const auto share = [](double value, const char* name) {
    if (!(value >= 0 && value <= 1)) input_error(cat(name, ": must be from 0 to 1"));
  };
  share(params.min_score, "min_score");
  share(params.min_stability, "min_stability");
  const auto kind = static_cast<int>(params.mask_prompt);
  if (kind < 0 || kind > 2) input_error(cat("mask_prompt: ", kind, " is not known"));
}

// Encodes a frame, unless it has the pixels of the one before.
void Follower::State::set(const Frame& frame) {
  std::optional<std::vector<std::uint8_t>> bytes;
  const bool comparable = frame.memory == Memory::host;  // others are encoded again in any case
  if (last && comparable && last->same_layout(frame)) {
    bytes = bytes_of(frame);
    if (last->bytes == *bytes) {
      require(predictor.set_features(features));  // somebody else may have set an image
      return;
    }
  }
  last.reset();
  // Checks the frame, whose bytes nothing must read before, unless a frame like it was accepted.
  require(predictor.set_frame(frame));
  require(predictor.get_features(&features));
  if (!bytes && comparable) bytes = bytes_of(frame);
  last = Picture{frame, bytes ? std::move(*bytes) : std::vector<std::uint8_t>()};
}

std::vector<Found> Follower::State::decode(const Prompts& prompts) {
  PredictParams how;
  how.rle = true;
  Prediction made;
  require(predictor.predict(prompts, how, &made));
  const std::size_t pixels = made.height * made.width;
  const std::size_t logits = made.low_res_side * made.low_res_side;
  std::vector<Found> all(made.count);
  for (std::size_t i = 0; i < made.count; ++i) {
    Followed& followed = all[i].followed;
    followed.score = made.scores[i];
    followed.stability = made.stability[i];
    followed.box = made.boxes[i];
    followed.area = made.areas[i];
    followed.rle = std::move(made.rle[i]);
    if (made.count == 1) {
      followed.mask = std::move(made.masks);
    } else {
      const std::uint8_t* mask = made.masks.data() + i * pixels;
      followed.mask.assign(mask, mask + pixels);
    }
    const float* low_res = made.low_res.data() + i * logits;
    all[i].low_res.assign(low_res, low_res + logits);
  }
  return all;
}

// Returns that an object is lost, with the figures of the mask that was refused.
Followed Follower::State::lose(std::size_t number, const Followed& refused) {
  if (objects[number]) objects[number]->lost = true;
  Followed lost;
  lost.score = refused.score;
  lost.stability = refused.stability;
  return lost;
}

// Remembers what was found for the next frame.
Followed Follower::State::accept(std::size_t number, Found found) {
  Followed followed = std::move(found.followed);
  if (followed.area == 0) return lose(number, followed);
  followed.lost = false;
  Remembered memory;
  memory.box = followed.box;
  memory.low_res = std::move(found.low_res);
  objects[number] = std::move(memory);
  return followed;
}

// Accepts what was found if it is certain enough.
Followed Follower::State::judge(std::size_t number, Found found) {
  const Followed& followed = found.followed;
  const double more = objects[number] && objects[number]->lost ? kRegain : 0.0;
  const bool certain = static_cast<double>(followed.score) >= params.min_score + more &&
                       followed.stability >= params.min_stability + more;
  if (!certain) return lose(number, followed);
  return accept(number, std::move(found));
}

// Returns whether masks of the first frame stay the same when they are prompts for that frame.
bool Follower::State::takes_masks(const std::vector<Followed>& first) {
  if (params.mask_prompt != MaskPrompt::automatic) return params.mask_prompt == MaskPrompt::always;
  OwnPrompts own;
  std::vector<std::size_t> numbers;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (!objects[i]) continue;
    own.add(*objects[i], true);
    numbers.push_back(i);
  }
  if (numbers.empty()) return false;
  const std::vector<Found> again = decode(own.view());
  for (std::size_t i = 0; i < again.size(); ++i) {
    if (iou(again[i].followed.mask, first[numbers[i]].mask) < kSameMask) return false;
  }
  return true;
}

std::vector<Followed> Follower::State::start(const Frame& frame, const Prompts& prompts) {
  check();
  set(frame);
  std::vector<Found> found = decode(prompts);
  std::vector<std::optional<Remembered>> before(found.size());
  before.swap(objects);
  try {
    std::vector<Followed> results;
    for (std::size_t i = 0; i < found.size(); ++i) results.push_back(accept(i, std::move(found[i])));
    with_mask = takes_masks(results);
    return results;
  } catch (...) {
    objects.swap(before);  // a call that fails changes nothing
    throw;
  }
}

std::vector<Followed> Follower::State::next(const Frame& frame) {
  if (!last || objects.empty()) input_error("nothing is followed; call start first");
  if (!last->same_size(frame)) {
    input_error(cat("image: ", frame.width, " x ", frame.height,
                    " pixels or their region, but the frames before have ", last->layout.width,
                    " x ", last->layout.height, " and theirs; call start"));
  }
  set(frame);
  std::vector<Followed> results(objects.size());
  OwnPrompts own;
  std::vector<std::size_t> numbers;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (!objects[i]) continue;
    own.add(*objects[i], with_mask);
    numbers.push_back(i);
  }
  if (numbers.empty()) return results;
  std::vector<Found> found = decode(own.view());
  for (std::size_t i = 0; i < found.size(); ++i) {
    results[numbers[i]] = judge(numbers[i], std::move(found[i]));
  }
  return results;
}

Followed Follower::State::prompt(std::size_t number, const Prompts& prompts) {
  if (!last || number >= objects.size()) {
    input_error(cat("object ", number, ": there are ", objects.size(), ", counted from 0"));
  }
  if (prompts.count != 1) input_error(cat(prompts.count, " prompts for one object; give one"));
  require(predictor.set_features(features));
  return accept(number, std::move(decode(prompts).front()));
}

namespace {

// Reserves a follower for a call. Throws Error (busy) if another thread's call has it.
class Reserved {
 public:
  explicit Reserved(std::atomic_flag& flag) : flag_(flag) {
    if (flag.test_and_set(std::memory_order_acquire)) throw Error(Code::busy, kBusy);
  }
  ~Reserved() { flag_.clear(std::memory_order_release); }
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;

 private:
  std::atomic_flag& flag_;
};

}  // namespace

Follower::Follower(Predictor& predictor, const FollowParams& params)
    : state_(std::make_unique<State>(predictor, params)) {}
Follower::~Follower() = default;

Status Follower::start(const Frame& frame, const Prompts& prompts,
                       std::vector<Followed>* objects) noexcept {
  return guard([&] {
    if (objects == nullptr) input_error("objects: a null pointer; pass a place for the result");
    const Reserved reserved(state_->in_use);
    *objects = state_->start(frame, prompts);
  });
}

Status Follower::next(const Frame& frame, std::vector<Followed>* objects) noexcept {
  return guard([&] {
    if (objects == nullptr) input_error("objects: a null pointer; pass a place for the result");
    const Reserved reserved(state_->in_use);
    *objects = state_->next(frame);
  });
}

Status Follower::prompt(std::size_t number, const Prompts& prompts, Followed* object) noexcept {
  return guard([&] {
    if (object == nullptr) input_error("object: a null pointer; pass a place for the result");
    const Reserved reserved(state_->in_use);
    *object = state_->prompt(number, prompts);
  });
}

std::size_t Follower::count() const noexcept { return state_->objects.size(); }

}  // namespace glesam
