// Formats text as the Python runtime does, independent of the process's locale.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace glesam {

// A path from UTF-8, and back. On Windows, std::filesystem takes and gives the code page instead.
inline std::filesystem::path path_of(const std::string& utf8) {
  return std::filesystem::u8path(utf8);
}
inline std::string utf8_of(const std::filesystem::path& path) { return path.u8string(); }

// Returns Python's repr() of a string: 'it', "it's", with escapes for non-printing characters.
std::string py_repr(std::string_view text);

// Returns Python's format(value, "g") with `digits` significant digits.
std::string general(double value, int digits = 6);

// Returns a number with `digits` digits after the point.
std::string fixed(double value, int digits);

// Replaces line breaks and runs of blanks by one blank.
std::string one_line(std::string_view text);

std::string join(const std::vector<std::string>& parts, std::string_view between);

inline void append(std::string& out, std::string_view part) { out += part; }
template <typename Integer, std::enable_if_t<std::is_integral_v<Integer>, int> = 0>
void append(std::string& out, Integer value) {
  out += std::to_string(value);
}

// Concatenates its arguments, which are strings and integers.
template <typename... Parts>
std::string cat(const Parts&... parts) {
  std::string out;
  (append(out, parts), ...);
  return out;
}

}  // namespace glesam
