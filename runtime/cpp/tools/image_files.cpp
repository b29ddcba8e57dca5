#include "image_files.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>

#define STB_IMAGE_IMPLEMENTATION
#define STBI_FAILURE_USERMSG
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#include <stb_image.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb_image_write.h>

RgbImage read_image(const std::string& path) {
  if (!std::filesystem::exists(path)) throw std::runtime_error(path + ": no such file");
  RgbImage image;
  int channels = 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> rgba(
      stbi_load(path.c_str(), &image.width, &image.height, &channels, 4), stbi_image_free);
  if (!rgba) {
    throw std::runtime_error(path + ": cannot be read as an image (" + stbi_failure_reason() + ")");
  }
  const std::size_t pixels =
      static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height);
  image.rgb.resize(pixels * 3);
  for (std::size_t i = 0; i < pixels; ++i) {
    const stbi_uc* from = rgba.get() + 4 * i;
    for (int c = 0; c < 3; ++c) {
      const int blended = (from[c] * from[3] + 255 * (255 - from[3]) + 127) / 255;
      image.rgb[3 * i + static_cast<std::size_t>(c)] = static_cast<std::uint8_t>(blended);
    }
  }
  return image;
}

void write_mask(const std::string& path, const std::uint8_t* mask, int width, int height) {
  const std::size_t pixels = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  std::vector<std::uint8_t> gray(mask, mask + pixels);
  for (std::uint8_t& value : gray) value = static_cast<std::uint8_t>(value * 255);
  if (stbi_write_png(path.c_str(), width, height, 1, gray.data(), width) == 0) {
    throw std::runtime_error(path + ": cannot be written");
  }
}
