// Writes safetensors files with the results of a test program.
#pragma once

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace glesam_tests {

class SafetensorsWriter {
 public:
  template <typename Value>
  void add(const std::string& name, const char* dtype, const std::vector<std::size_t>& shape,
           const std::vector<Value>& values) {
    const std::size_t begin = data_.size();
    data_.resize(begin + values.size() * sizeof(Value));
    if (!values.empty()) std::memcpy(data_.data() + begin, values.data(), data_.size() - begin);
    std::string axes;
    for (const std::size_t axis : shape) axes += (axes.empty() ? "" : ",") + std::to_string(axis);
    header_ += (header_.empty() ? "{\"" : ",\"") + name + "\":{\"dtype\":\"" + dtype +
               "\",\"shape\":[" + axes + "],\"data_offsets\":[" + std::to_string(begin) + "," +
               std::to_string(data_.size()) + "]}";
  }

  void write(const std::string& path) const {
    const std::string header = header_ + "}";
    std::ofstream file(path, std::ios::binary);
    for (int shift = 0; shift < 64; shift += 8) file.put(static_cast<char>(header.size() >> shift));
    file << header;
    file.write(data_.data(), static_cast<std::streamsize>(data_.size()));
  }

 private:
  std::string header_;
  std::vector<char> data_;
};

}  // namespace glesam_tests
