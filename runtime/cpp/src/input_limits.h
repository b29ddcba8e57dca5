// Refuses inputs above the limits of Params::limits.
#pragma once

#include <cstddef>
#include <string>

#include "glesam.h"

namespace glesam {

// One of the limits, and how messages spell it.
struct Limit {
  std::size_t Limits::* value;
  const char* field;     // the field of Params::limits
  const char* name;      // the unit
  std::size_t unit = 1;  // the number of pixels, bytes or things that the field counts as 1
  Code code = Code::invalid_input;
};

inline constexpr std::size_t kMebi = std::size_t{1} << 20;
inline constexpr Limit kSide{&Limits::side, "side", "pixels per side"};
inline constexpr Limit kMegapixels{&Limits::megapixels, "megapixels",
                                   "megapixels (of 1024 x 1024 pixels)", kMebi};
inline constexpr Limit kPoints{&Limits::points, "points", "points per prompt"};
inline constexpr Limit kPrompts{&Limits::prompts, "prompts", "prompts"};
inline constexpr Limit kJsonBytes{&Limits::json_mib, "json_mib", "MiB", kMebi, Code::bad_bundle};
inline constexpr Limit kGoldenBytes{&Limits::golden_mib, "golden_mib", "MiB", kMebi,
                                    Code::bad_bundle};

// Refuses a size in pixels, bytes or things. `where` is what is too large, and how large, as the
// start of the message. Throws Error with the limit's code.
void check_limit(const Limit& limit, const Limits& limits, std::uint64_t size,
                 const std::string& where);

// Returns the largest size that check_limit accepts, cut to 64 bits.
std::uint64_t largest(const Limit& limit, const Limits& limits);

}  // namespace glesam
