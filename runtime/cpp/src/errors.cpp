#include "errors.h"

#include <algorithm>
#include <cctype>
#include <new>
#include <stdexcept>

#include "text.h"

namespace glesam {
namespace {

Status describe() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.code(), one_line(error.message())};
  } catch (const std::bad_alloc&) {
    return {Code::out_of_memory,
            "not enough memory; use a smaller image or fewer prompts at a time"};
  } catch (const std::length_error&) {  // a vector that cannot fit in any memory
    return {Code::out_of_memory,
            "not enough memory; use a smaller image or fewer prompts at a time"};
  } catch (const std::exception& error) {
    return {Code::internal,
            one_line(cat("a bug in this library: ", error.what(), "; please report it"))};
  } catch (...) {
    return {Code::internal, "a bug in this library; please report it"};
  }
}

}  // namespace

bool means_out_of_memory(std::string_view message) {
  std::string text(message);
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  static constexpr std::string_view kWords[] = {
      "failed to allocate",        // OpenVINO CPU; ONNX Runtime's and TensorRT's allocators
      "bad_alloc",                 // libstdc++, inside any engine
      "bad allocation",            // Microsoft's C++ library
      "out of memory",             // CUDA
      "outofmemory",               // TensorRT: "Error Code 2: OutOfMemory"
      "out_of_host_memory",        // Level Zero, OpenCL
      "out_of_device_memory",      // Level Zero
      "allocation_failure",        // OpenCL: CL_MEM_OBJECT_ALLOCATION_FAILURE
      "not enough memory",         // oneDNN, Windows
      "cannot allocate memory",    // ENOMEM
      "could not allocate memory"  // OpenVINO
  };
  // Xbyak, which compiles code for OpenVINO's and oneDNN's CPU kernels, ends its message with these
  // words. OpenVINO's "can't allocate registers" is another error.
  constexpr std::string_view kXbyak = "can't alloc";
  const std::size_t found = text.rfind(kXbyak);
  if (found != std::string::npos && text.compare(found, kXbyak.size() + 3, "can't allocate") != 0) {
    return true;
  }
  return std::any_of(std::begin(kWords), std::end(kWords), [&text](std::string_view words) {
    return text.find(words) != std::string::npos;
  });
}

void engine_failed(std::string_view reason, std::string message) {
  if (means_out_of_memory(reason)) throw std::bad_alloc();
  backend_error(std::move(message));
}

Status status_of_current_exception() noexcept {
  try {
    return describe();
  } catch (...) {  // there is no memory for the message either
    return {Code::out_of_memory, {}};
  }
}

}  // namespace glesam
