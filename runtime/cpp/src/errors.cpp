#include "errors.h"

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

Status status_of_current_exception() noexcept {
  try {
    return describe();
  } catch (...) {  // there is no memory for the message either
    return {Code::out_of_memory, {}};
  }
}

}  // namespace glesam
