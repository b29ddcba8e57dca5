// Fuzzes the safetensors reader. It must read any bytes or refuse them with std::runtime_error.
#include <cstddef>
#include <cstdint>
#include <sstream>

#include "safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    glesam::Bytes bytes(std::make_unique<std::istringstream>(
        std::string(reinterpret_cast<const char*>(data), size)));
    for (const auto& [name, tensor] : glesam::read_safetensors(bytes)) {
      if (tensor.dtype == "F32") tensor.floats();
    }
  } catch (const std::runtime_error&) {
  }
  return 0;
}
