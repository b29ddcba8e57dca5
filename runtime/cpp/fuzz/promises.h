// What glesam_c.h promises of each call: a code that exists, a message of one line exactly if it failed,
// outputs that are changed only by success, and arrays that agree with each other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "glesam_c.h"

#define MUST(condition)                                                         \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::fprintf(stderr, "ERROR: line %d: not %s\n", __LINE__, #condition);   \
      std::abort();                                                             \
    }                                                                           \
  } while (false)

namespace glesam_fuzz {

constexpr std::size_t kLowRes = 64;  // S/4 of nano

inline void check_code(int code, const char* message) {
  MUST(code >= GLESAM_OK && code <= GLESAM_TIMEOUT && code != GLESAM_INTERNAL);
  MUST((code == GLESAM_OK) == (*message == '\0'));
  MUST(std::strchr(message, '\n') == nullptr);
}

inline void check_output(const glesam_output& output) {
  const std::size_t masks = output.count * output.masks_per_prompt;
  const std::size_t pixels = output.height * output.width;
  MUST(masks > 0 && pixels > 0 && output.low_res_side == kLowRes);
  MUST(std::isfinite(std::accumulate(output.scores, output.scores + masks, 0.0F)));
  std::size_t ring = 0, corner = 0;
  for (std::size_t i = 0; i < masks; ++i) {
    if (output.masks != nullptr) {
      const std::uint8_t* mask = output.masks + i * pixels;
      MUST(std::all_of(mask, mask + pixels, [](std::uint8_t value) { return value <= 1; }));
      MUST(std::accumulate(mask, mask + pixels, std::int64_t{0}) == output.areas[i]);
    }
    if (output.areas != nullptr) {
      const glesam_box& box = output.boxes[i];
      MUST(output.areas[i] <= std::int64_t{box.width} * box.height);
      MUST(box.x >= 0 && box.y >= 0 && std::size_t(box.x + box.width) <= output.width &&
           std::size_t(box.y + box.height) <= output.height);
    }
    if (output.rle != nullptr) MUST(std::strlen(output.rle[i]) > 0);
    if (output.ring_counts != nullptr) {
      // Vertical edges to the left of a pixel; the even-odd rule counts them.
      std::vector<std::uint8_t> crossed((output.width + 1) * output.height);
      for (std::size_t end = ring + output.ring_counts[i]; ring < end; ++ring) {
        const int* at = output.polygon_corners + 2 * corner;
        const std::size_t size = output.ring_sizes[ring];
        for (std::size_t k = 0; k < size; ++k) {
          const int *here = at + 2 * k, *next = at + 2 * ((k + 1) % size);
          MUST(here[0] == next[0] || here[1] == next[1]);
          if (here[0] != next[0]) continue;
          for (int y = std::min(here[1], next[1]); y < std::max(here[1], next[1]); ++y) {
            crossed.at(std::size_t(y) * (output.width + 1) + std::size_t(here[0])) ^= 1;
          }
        }
        corner += size;
      }
      std::int64_t area = 0;
      for (std::size_t y = 0; y < output.height; ++y) {
        std::uint8_t inside = 0;
        for (std::size_t x = 0; x < output.width; ++x) {
          inside ^= crossed[y * (output.width + 1) + x];
          area += inside;
          const std::size_t pixel = y * output.width + x;
          if (output.masks != nullptr) MUST(inside == output.masks[i * pixels + pixel]);
        }
      }
      MUST(area == output.areas[i]);
    }
  }
}

}  // namespace glesam_fuzz
