// Draws arguments for the C API from the fuzzer's bytes. Every array is allocated as large as the header
// says that it must be, so that the address sanitizer sees whoever reads or writes beyond it.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "glesam_c.h"

namespace glesam_fuzz {

using Draw = FuzzedDataProvider;

inline double number(Draw& draw, double low, double high) {
  switch (draw.ConsumeIntegralInRange(0, 15)) {
    case 0: return std::numeric_limits<double>::quiet_NaN();
    case 1: return std::numeric_limits<double>::infinity();
    case 2: return -1e300;
    case 3: return 0;
    default: return draw.ConsumeFloatingPointInRange(low, high);
  }
}

// A struct with a struct_size, in memory of exactly that size. Most sizes are right.
template <typename Struct>
class Sized {
 public:
  Sized(Draw& draw, const Struct& values) {
    constexpr std::size_t kNow = sizeof(Struct), kWord = sizeof(std::size_t);
    std::size_t size = kNow;
    switch (draw.ConsumeIntegralInRange(0, 19)) {
      case 0: size = 0; break;                     // refused
      case 1: size = SIZE_MAX; break;              // refused
      case 2: size = 4097; break;                  // refused
      case 3: size = kNow - kWord; break;          // an older caller's
      case 4: size = kWord; break;                 // an older caller's
      case 5: case 6: size = kNow + kWord; break;  // a newer caller's
      default: break;
    }
    const std::size_t real = size < kWord || size > 4096 ? kNow : size;
    bytes_ = std::make_unique<unsigned char[]>(real);
    Struct own = values;
    own.struct_size = size;
    std::memset(bytes_.get(), 0, real);
    std::memcpy(bytes_.get(), &own, std::min(real, kNow));
    if (size == kNow + kWord) bytes_[kNow] = draw.ConsumeBool() ? 1 : 0;
    before_.assign(bytes_.get(), bytes_.get() + real);
  }
  Struct* get() { return reinterpret_cast<Struct*>(bytes_.get()); }
  // Returns a copy with zeros for what the struct has no room for.
  Struct read() const {
    Struct own{};
    std::memcpy(&own, bytes_.get(), std::min(before_.size(), sizeof own));
    return own;
  }
  bool changed() const { return std::memcmp(bytes_.get(), before_.data(), before_.size()) != 0; }

 private:
  std::unique_ptr<unsigned char[]> bytes_;
  std::vector<unsigned char> before_;
};

// A frame and its pixels. Frames that the library must refuse may claim more pixels than there are.
class AnyFrame {
 public:
  explicit AnyFrame(Draw& draw) : pixels_(kBytes, 90) {
    glesam_frame frame{};
    frame.format = draw.ConsumeIntegralInRange(-1, 7);
    frame.width = draw.ConsumeIntegralInRange(-1, kSide);
    frame.height = draw.ConsumeIntegralInRange(-1, kSide);
    if (draw.ConsumeIntegralInRange(0, 15) == 0) frame.width = kHuge;
    if (draw.ConsumeIntegralInRange(0, 15) == 0) frame.height = kHuge;
    for (int i = 0; i < 3; ++i) {
      frame.planes[i] = draw.ConsumeIntegralInRange(0, 31) == 0 ? nullptr : pixels_.data() + kBytes / 2;
      switch (draw.ConsumeIntegralInRange(0, 15)) {
        case 0: frame.strides[i] = PTRDIFF_MIN; break;
        case 1: frame.strides[i] = PTRDIFF_MAX; break;
        case 2: frame.strides[i] = std::ptrdiff_t{1} << 31; break;
        case 3: case 4: case 5:
          frame.strides[i] = draw.ConsumeIntegralInRange<std::ptrdiff_t>(-kMostStride, kMostStride);
          break;
        default: break;
      }
    }
    if (draw.ConsumeIntegralInRange(0, 3) == 0) {
      frame.region_x = draw.ConsumeIntegralInRange(-1, kSide);
      frame.region_y = draw.ConsumeIntegralInRange(-1, kSide);
      frame.region_width = draw.ConsumeIntegralInRange(0, kSide);
      frame.region_height = draw.ConsumeIntegralInRange(0, kSide);
      if (draw.ConsumeIntegralInRange(0, 7) == 0) frame.region_width = kHuge;
    }
    // A huge side whose region is small would be read, and there are no such pixels.
    if (frame.width == kHuge || frame.height == kHuge) {
      frame.region_x = frame.region_y = frame.region_width = frame.region_height = 0;
      frame.width = frame.height = kHuge;
    }
    frame.yuv_matrix = draw.ConsumeIntegralInRange(-1, 3);
    frame.yuv_range = draw.ConsumeIntegralInRange(-1, 2);
    if (draw.ConsumeIntegralInRange(0, 7) == 0) frame.memory = draw.ConsumeIntegralInRange(-1, 2);
    pixels_[kBytes / 2] = draw.ConsumeIntegral<std::uint8_t>();
    width_ = frame.region_width > 0 ? frame.region_width : frame.width;
    height_ = frame.region_height > 0 ? frame.region_height : frame.height;
    frame_ = std::make_unique<Sized<glesam_frame>>(draw, frame);
  }
  const glesam_frame* get() const { return frame_->get(); }
  std::size_t width() const { return static_cast<std::size_t>(width_); }
  std::size_t height() const { return static_cast<std::size_t>(height_); }

 private:
  static constexpr int kSide = 40, kHuge = std::numeric_limits<int>::max();
  static constexpr std::ptrdiff_t kMostStride = 300;
  static constexpr std::size_t kBytes = 2 * (kMostStride + 4) * (kSide + 1);
  std::vector<std::uint8_t> pixels_;
  std::unique_ptr<Sized<glesam_frame>> frame_;
  int width_ = 0, height_ = 0;
};

// Prompts and their arrays. Counts that the library must refuse may have no arrays of their size.
class AnyPrompts {
 public:
  AnyPrompts(Draw& draw, std::size_t low_res_side) {
    prompts_.count = draw.ConsumeIntegralInRange<std::size_t>(0, 20);
    prompts_.points_per_prompt = draw.ConsumeIntegralInRange<std::size_t>(0, 3);
    const std::size_t count = prompts_.count, points = count * prompts_.points_per_prompt;
    points_ = std::vector<double>(2 * points);
    for (double& value : points_) value = number(draw, 0, 39);
    labels_ = std::vector<float>(points);
    for (float& value : labels_) value = static_cast<float>(draw.ConsumeIntegralInRange(-1, 20) / 10);
    boxes_ = std::vector<double>(4 * count);
    for (double& value : boxes_) value = number(draw, -5, 45);
    mask_ = std::vector<float>(count * low_res_side * low_res_side,
                               static_cast<float>(number(draw, -9, 9)));
    const bool pointed = draw.ConsumeIntegralInRange(0, 3) != 0;
    prompts_.points = pointed ? points_.data() : nullptr;
    prompts_.labels = pointed != (draw.ConsumeIntegralInRange(0, 31) == 0) ? labels_.data() : nullptr;
    if (!pointed && draw.ConsumeBool()) prompts_.points_per_prompt = 0;
    prompts_.boxes = draw.ConsumeBool() ? boxes_.data() : nullptr;
    prompts_.mask_input = draw.ConsumeIntegralInRange(0, 3) == 0 ? mask_.data() : nullptr;
    switch (draw.ConsumeIntegralInRange(0, 31)) {
      case 0: prompts_.count = SIZE_MAX; break;
      case 1: prompts_.points_per_prompt = SIZE_MAX / 2; break;
      case 2: prompts_.count = std::size_t{1} << 62; break;
      default: break;
    }
  }
  const glesam_prompts* get() const { return &prompts_; }

 private:
  glesam_prompts prompts_{};
  std::vector<double> points_, boxes_;
  std::vector<float> labels_, mask_;
};

// What to compute, and the caller's own memory for masks.
class AnyRequest {
 public:
  explicit AnyRequest(Draw& draw) {
    glesam_request request{};
    request.multimask = draw.ConsumeBool();
    request.skip_masks = draw.ConsumeIntegralInRange(0, 3) == 0;
    request.boxes = draw.ConsumeBool();
    request.packed = draw.ConsumeBool();
    request.rle = draw.ConsumeBool();
    request.logits = draw.ConsumeBool();
    request.polygons = draw.ConsumeBool();
    if (draw.ConsumeIntegralInRange(0, 2) == 0) {
      buffer_ = std::vector<std::uint8_t>(draw.ConsumeIntegralInRange<std::size_t>(0, 1 << 16));
      request.mask_buffer = buffer_.data();
      request.mask_buffer_size = buffer_.size();
      request.mask_stride = draw.ConsumeIntegralInRange<std::size_t>(0, 100);
      if (draw.ConsumeIntegralInRange(0, 7) == 0) request.mask_stride = SIZE_MAX / 3;
    }
    request_ = std::make_unique<Sized<glesam_request>>(draw, request);
  }
  const glesam_request* get() const { return request_->get(); }

 private:
  std::vector<std::uint8_t> buffer_;
  std::unique_ptr<Sized<glesam_request>> request_;
};

}  // namespace glesam_fuzz
