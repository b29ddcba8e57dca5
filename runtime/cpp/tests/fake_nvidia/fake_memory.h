// The memory and the streams of a fake GPU in host memory. A stream does its work when it is waited for
// and not before, as a slow GPU would. So a buffer that is read or overwritten too early shows in the
// numbers. The memory can be read and written only while the GPU works: a host that touches it crashes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <deque>
#include <functional>

struct FakeStream {
  FakeStream();
  ~FakeStream();
  FakeStream(const FakeStream&) = delete;
  FakeStream& operator=(const FakeStream&) = delete;

  void add(std::function<cudaError_t()> work) { queue_.push_back(std::move(work)); }
  std::size_t added() const { return done_ + queue_.size(); }
  // Does the work, all of it or the first `count` pieces that were ever added. It stops at an error,
  // and forgets the rest.
  cudaError_t finish();
  cudaError_t finish(std::size_t count);

 private:
  std::deque<std::function<cudaError_t()>> queue_;
  std::size_t done_ = 0;
};

// The stream whose handle is null.
FakeStream& fake_default_stream();

// Returns null if there is no memory.
void* fake_allocate(std::size_t bytes);
cudaError_t fake_free(void* memory);
// Returns whether all of these bytes are allocated, and remembers it if they are not.
bool fake_is_allocated(const void* memory, std::size_t bytes);
// Returns the block that contains an address, or nothing.
struct FakeBlock {
  char* begin = nullptr;
  std::size_t bytes = 0;
};
FakeBlock fake_block_of(const void* memory);
void fake_copy_from_host(FakeStream* stream, void* to, const void* from, std::size_t bytes);
