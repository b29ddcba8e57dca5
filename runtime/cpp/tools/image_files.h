// Reads and writes image files with stb.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct RgbImage {
  int width = 0, height = 0;
  std::vector<std::uint8_t> rgb;
};

// Reads an image and shows transparency on white. Throws std::runtime_error.
RgbImage read_image(const std::string& path);

// Writes a mask of 0 and 1 as a PNG of 0 and 255. Throws std::runtime_error.
void write_mask(const std::string& path, const std::uint8_t* mask, int width, int height);
