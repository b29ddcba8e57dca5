// Fuzzes the ONNX reader. It must find the locations of weights or refuse the bytes with Error.
#include <cstddef>
#include <cstdint>
#include <sstream>

#include "errors.h"
#include "onnx_files.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    glesam::Bytes bytes(std::make_unique<std::istringstream>(
        std::string(reinterpret_cast<const char*>(data), size)));
    glesam::external_data_locations(bytes, "encoder.onnx");
  } catch (const glesam::Error&) {
  }
  return 0;
}
