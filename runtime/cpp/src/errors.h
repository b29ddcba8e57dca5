// Errors inside the library are exceptions. At the public API, guard() turns them into a Status.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "glesam.h"

namespace glesam {

class Error : public std::exception {
 public:
  Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }
  const std::string& message() const noexcept { return message_; }
  Code code() const noexcept { return code_; }

 private:
  Code code_;
  std::string message_;
};

// The message of Code::busy.
inline constexpr const char* kBusy =
    "the predictor is in use by another thread; give each thread a session of its own, which "
    "share() returns";

[[noreturn]] inline void input_error(std::string message) {
  throw Error(Code::invalid_input, std::move(message));
}
[[noreturn]] inline void bundle_error(std::string message) {
  throw Error(Code::bad_bundle, std::move(message));
}
[[noreturn]] inline void backend_error(std::string message) {
  throw Error(Code::backend, std::move(message));
}

// Returns whether an engine's error message says that memory could not be allocated. Engines have
// no error code for it.
bool means_out_of_memory(std::string_view message);

// Throws std::bad_alloc if `reason`, an engine's message, says that memory ran out. Otherwise
// throws Error (backend) with `message`.
[[noreturn]] void engine_failed(std::string_view reason, std::string message);

// Returns the Status for the exception that is being handled. Its message is one line.
Status status_of_current_exception() noexcept;

// Calls work() and turns any exception into a Status.
template <typename Work>
Status guard(Work&& work) noexcept {
  try {
    work();
    return {};
  } catch (...) {
    return status_of_current_exception();
  }
}

}  // namespace glesam
