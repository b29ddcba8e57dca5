#include "text.h"

#include <array>
#include <charconv>
#include <cstdint>

namespace glesam {
namespace {

// Returns false for code points that Python escapes: controls and invisible ones of Latin-1.
bool prints(std::uint32_t point) {
  return point >= 0x20 && point != 0x7f && !(point >= 0x80 && point <= 0xa0) && point != 0xad;
}

std::string to_text(double value, std::chars_format format, int digits) {
  std::array<char, 512> buffer;  // the longest number, 1e308 in fixed form, has 310 characters
  const auto end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format, digits).ptr;
  return {buffer.data(), end};
}

}  // namespace

std::string py_repr(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char mark = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  constexpr char hex[] = "0123456789abcdef";
  std::string out(1, mark);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool two = (byte == 0xc2) && i + 1 < text.size();  // U+0080 to U+00BF
    const std::uint32_t point = two ? static_cast<unsigned char>(text[i + 1]) : byte;
    if (byte == '\n') {
      out += "\\n";
    } else if (byte == '\t') {
      out += "\\t";
    } else if (byte == '\r') {
      out += "\\r";
    } else if (byte == '\\' || text[i] == mark) {
      (out += '\\') += text[i];
    } else if ((byte < 0x80 || two) && !prints(point)) {
      ((out += "\\x") += hex[point >> 4 & 15]) += hex[point & 15];
      i += two;
    } else {
      out += text[i];
    }
  }
  return out += mark;
}

std::string general(double value, int digits) {
  return to_text(value, std::chars_format::general, digits);
}

std::string fixed(double value, int digits) {
  return to_text(value, std::chars_format::fixed, digits);
}

std::string one_line(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool blank = c == ' ' || (c >= '\t' && c <= '\r');
    if (!blank) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::string join(const std::vector<std::string>& parts, std::string_view between) {
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += between;
    out += parts[i];
  }
  return out;
}

}  // namespace glesam
