// The handles of the C API, and how its functions read and write structs and report errors.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "errors.h"
#include "glesam.h"
#include "glesam_c.h"
#include "glesam_everything.h"
#include "text.h"

// What the pointers of a glesam_result or glesam_output point to.
struct glesam_kept {
  glesam::Prediction prediction;
  std::vector<glesam_box> boxes;  // those of `prediction`, for C
  std::vector<const char*> rle;
  std::vector<std::size_t> ring_counts, ring_sizes;
  std::vector<int> corners;

  explicit glesam_kept(glesam::Prediction made);
  glesam_output output() const;
};

struct glesam_predictor {
  std::unique_ptr<glesam::Predictor> predictor;
  std::unique_ptr<const glesam_kept> kept;
  std::vector<glesam::Record> records;
  std::string message;
  std::atomic_flag in_use = ATOMIC_FLAG_INIT;

  // Waits for an asynchronous call, which uses the other members.
  ~glesam_predictor() { predictor.reset(); }
};

struct glesam_features {
  glesam::Features features;
};

namespace glesam {

inline std::string text_of(const char* text) { return text != nullptr ? text : ""; }

// The handle whose last call in this thread returned GLESAM_BUSY. The other thread may change the
// handle's own message, so glesam_message must not read it then.
inline thread_local const glesam_predictor* refused = nullptr;

// Runs `call`, which returns a Status, unless another thread uses the handle, and keeps its
// message. If the call sets `started`, it goes on in another thread, which then has the handle.
template <typename Call>
int report(glesam_predictor* handle, Call&& call, const bool* started = nullptr) {
  if (handle == nullptr) return GLESAM_INVALID_INPUT;
  if (handle->in_use.test_and_set(std::memory_order_acquire)) {
    refused = handle;
    return GLESAM_BUSY;
  }
  if (refused == handle) refused = nullptr;
  Status status = call();
  if (started != nullptr && *started) return GLESAM_OK;
  handle->message = std::move(status.message);
  handle->in_use.clear(std::memory_order_release);
  return static_cast<int>(status.code);
}

// Refuses a struct_size that the caller has not set.
inline void check_size(size_t size, const char* name) {
  constexpr size_t kMost = 4096;  // no later version can be this large
  if (size < sizeof(size_t) || size > kMost) {
    input_error(cat(name, ": struct_size is ", size, "; set it to the sizeof of the struct"));
  }
}

// Returns a struct that begins with its size. Fields that an older caller does not know are zero.
// Throws Error (invalid_input) for a newer caller that sets fields which this library does not know.
template <typename Struct>
Struct read_sized(const Struct* given, const char* name) {
  if (given == nullptr) input_error(cat(name, ": a null pointer; pass a struct"));
  const size_t size = given->struct_size;
  check_size(size, name);
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (size_t i = sizeof(Struct); i < size; ++i) {
    if (bytes[i] != 0) {
      input_error(cat(name, ": sets a field of a later version than ", version(),
                      "; use a newer library"));
    }
  }
  Struct own{};
  std::memcpy(&own, given, std::min(size, sizeof own));
  return own;
}

// Writes as many bytes of a struct as the caller's has, and zeros to fields that this library does
// not know.
template <typename Struct>
void write_sized(Struct own, Struct* into) {
  const size_t size = into->struct_size;
  own.struct_size = size;
  std::memcpy(into, &own, std::min(size, sizeof own));
  if (size > sizeof own) {
    std::memset(reinterpret_cast<unsigned char*>(into) + sizeof own, 0, size - sizeof own);
  }
}

// Returns null for an empty array.
template <typename Value>
const Value* array_of(const std::vector<Value>& values) {
  return values.empty() ? nullptr : values.data();
}

Prompts prompts_of(const glesam_prompts& given);
PredictParams params_of(const glesam_request* request);
// Throws Error (invalid_input) if the struct is null or its struct_size is wrong.
Frame frame_of(const glesam_frame* frame);

// Throws the error of a function of the C++ API, for guard().
inline void require(Status status) {
  if (!status) throw Error(status.code, std::move(status.message));
}

// Copies a text and cuts it to `size` bytes with the final zero, but never inside a character of
// UTF-8.
inline void copy_cut(const std::string& text, char* into, size_t size) {
  if (into == nullptr || size == 0) return;
  size_t length = std::min(text.size(), size - 1);
  while (length < text.size() && length > 0 && (text[length] & 0xc0) == 0x80) --length;
  std::memcpy(into, text.data(), length);
  into[length] = '\0';
}

// Writes the message of a call that has no handle, and returns its code.
inline int said(const Status& status, char* message, size_t message_size) {
  copy_cut(status.message, message, message_size);
  return static_cast<int>(status.code);
}

}  // namespace glesam
