// What a test tells the fake GPU to do, and what it asks it.
#pragma once

#include <cstddef>
#include <limits>

struct FakeGpu {
  static constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();
  // The number of graphs that succeed before one fails: when it is queued, or when it runs. A graph
  // that fails when it runs has written NaN to its outputs.
  std::size_t until_enqueue_fails = kNever, until_run_fails = kNever;
  std::size_t capacity = kNever;     // bytes that can be allocated
  double seconds_per_run = 0;        // how long each graph runs
  std::size_t allocated = 0;         // bytes now
  std::size_t runs = 0;              // graphs that have run
  std::size_t engines = 0;           // engines that were loaded
  bool touched_free_memory = false;  // whether a graph or a copy used memory that is not allocated

  // Of the driver and the compiler of kernels.
  int ordinal = 0;                      // the device that the driver says all memory is on
  bool memory_is_host = false;          // whether it says that all memory is the host's
  std::size_t bytes_of_range = kNever;  // of each piece that an allocation was mapped in
  std::size_t until_upload_fails = kNever;
  bool compiler_fails = false;
  std::size_t compiled = 0;          // programs that were compiled
  std::size_t kernels = 0;           // kernels that have run
  std::size_t copied_from_host = 0;  // bytes
};

// While one lives, the memory of the fake GPU can be read and written.
struct FakeGpuAtWork {
  FakeGpuAtWork();
  ~FakeGpuAtWork();
  FakeGpuAtWork(const FakeGpuAtWork&) = delete;
  FakeGpuAtWork& operator=(const FakeGpuAtWork&) = delete;
};

// What the fake compiler returns.
inline constexpr const char* kFakeBinary = "the fake compiler's kernels";

// Returns the state of the only fake GPU.
FakeGpu& fake_gpu();
