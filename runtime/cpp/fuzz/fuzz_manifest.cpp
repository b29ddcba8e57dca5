// Fuzzes the manifest reader. It must read any bytes or refuse them with Error.
#include <cstddef>
#include <cstdint>

#include "errors.h"
#include "manifest_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    glesam::parse_manifest({reinterpret_cast<const char*>(data), size}, "manifest.json");
  } catch (const glesam::Error&) {
  }
  return 0;
}
