// Writes masks in fewer bytes than one per pixel: packed bits, and COCO's run lengths.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace glesam {

// Packs a row of 0 and 1 into (width + 7) / 8 bytes. The highest bit of a byte is its first pixel,
// and the bits beyond the row are 0.
void pack_bits(const std::uint8_t* row, std::size_t width, std::uint8_t* packed);

// Turns the places where a mask begins or ends, counted down the columns, into COCO's text.
class RunWriter {
 public:
  void change_at(std::int64_t place);
  std::string finish(std::int64_t pixels);

 private:
  void add(std::int64_t run);

  std::string text_;
  std::int64_t last_ = 0, previous_[2] = {0, 0};
  std::size_t count_ = 0;
};

// Encodes a mask as COCO does, from its rows. COCO counts runs of equal pixels down the columns,
// starting with background. Only the previous row and the places where a column changes are kept.
class RleWriter {
 public:
  RleWriter(std::size_t height, std::size_t width);

  // Adds the next row, `width` bytes of 0 and 1.
  void add_row(const std::uint8_t* row);

  // Returns the compressed counts, when all rows are added.
  std::string counts() const;

 private:
  std::size_t height_;
  std::uint32_t y_ = 0;               // the next row
  std::vector<std::uint8_t> before_;  // the previous row; zeros above the first
  std::vector<std::vector<std::uint32_t>>
      changes_;  // of each column: rows that differ from the one
                 // above, or from background in row 0
};

}  // namespace glesam
