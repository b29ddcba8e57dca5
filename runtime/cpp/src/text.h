// Text as the Python runtime spells it, whatever the process's locale.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace glesam {

// A string as Python's repr(): 'it', "it's", escapes for what does not print.
std::string py_repr(std::string_view text);

// A number as Python's format(value, "g"); `digits` significant ones.
std::string general(double value, int digits = 6);

// A number with `digits` after the point.
std::string fixed(double value, int digits);

// Line breaks and runs of blanks become one blank.
std::string one_line(std::string_view text);

std::string join(const std::vector<std::string>& parts, std::string_view between);

inline void append(std::string& out, std::string_view part) { out += part; }
template <typename Integer, std::enable_if_t<std::is_integral_v<Integer>, int> = 0>
void append(std::string& out, Integer value) {
  out += std::to_string(value);
}

// Its arguments, strings and integers, one after another.
template <typename... Parts>
std::string cat(const Parts&... parts) {
  std::string out;
  (append(out, parts), ...);
  return out;
}

}  // namespace glesam
