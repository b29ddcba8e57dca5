// The functions of the CUDA driver that read frames, on the fake GPU. Kernels are the
// library's own, compiled for the host, and run one thread after the other.
#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "fake_memory.h"
#include "fake_nvidia.h"

namespace {
struct Index {
  unsigned x = 0, y = 0, z = 0;
};
Index blockIdx, threadIdx, blockDim, gridDim;
}  // namespace

#define __CUDACC__
#define __global__
#define __device__
#include "gpu_kernels.h"

namespace {

constexpr int kInvalidValue = 1, kOutOfMemory = 2, kInvalidContext = 201, kNoBinary = 209;

struct Kernel {
  std::size_t bytes;  // of its arguments
  void (*run)(const void* arguments);
};

template <typename Arguments, void (*kernel)(Arguments)>
void run(const void* arguments) {
  kernel(*static_cast<const Arguments*>(arguments));
}

const std::map<std::string, Kernel>& kernels() {
#define ENTRY(name, Arguments) \
  {#name, {sizeof(glesam_gpu::Arguments), run<glesam_gpu::Arguments, name>}},
  static const std::map<std::string, Kernel> all{GLESAM_KERNELS(ENTRY)};
#undef ENTRY
  return all;
}

template <typename Visit>
void for_each(const Index& size, Index& at, Visit&& visit) {
  for (at.y = 0; at.y < size.y; ++at.y) {
    for (at.x = 0; at.x < size.x; ++at.x) visit();
  }
}

struct Event {
  FakeStream* stream = nullptr;
  std::size_t added = 0;
};

FakeStream* stream_of(void* handle) {
  return handle != nullptr ? static_cast<FakeStream*>(handle) : &fake_default_stream();
}

int contexts = 0;  // how many are pushed
int code_of(cudaError_t code) { return code == cudaSuccess ? 0 : 700; }
int needs_context(int code) { return contexts > 0 ? code : kInvalidContext; }

}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuDeviceGet(int* handle, int device) { return *handle = device, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  return *value = attribute == 75 ? 8 : 9, 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &contexts, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxPushCurrent_v2(void*) { return ++contexts, 0; }
int cuCtxPopCurrent_v2(void** context) { return --contexts, *context = &contexts, 0; }
int cuGetErrorString(int, const char** text) { return *text = "the fake driver failed", 0; }

int cuStreamCreate(void** stream, unsigned) { return *stream = new FakeStream, needs_context(0); }
int cuStreamDestroy_v2(void* stream) { return delete static_cast<FakeStream*>(stream), 0; }
int cuStreamSynchronize(void* stream) {
  return needs_context(code_of(stream_of(stream)->finish()));
}
int cuEventCreate(void** event, unsigned) { return *event = new Event, needs_context(0); }
int cuEventDestroy_v2(void* event) { return delete static_cast<Event*>(event), 0; }
int cuEventRecord(void* event, void* stream) {
  FakeStream* recorded = stream_of(stream);
  *static_cast<Event*>(event) = {recorded, recorded->added()};
  return 0;
}
int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  const Event waited = *static_cast<Event*>(event);
  stream_of(stream)->add([waited] { return waited.stream->finish(waited.added); });
  return 0;
}

int cuMemAlloc_v2(unsigned long long* address, std::size_t bytes) {
  void* memory = fake_allocate(bytes);
  if (memory == nullptr) return kOutOfMemory;
  *address = reinterpret_cast<unsigned long long>(memory);
  return needs_context(0);
}
int cuMemFree_v2(unsigned long long address) {
  return code_of(fake_free(reinterpret_cast<void*>(address)));
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, std::size_t bytes, void* stream) {
  if (fake_gpu().until_upload_fails == 0) return kOutOfMemory;
  if (fake_gpu().until_upload_fails != FakeGpu::kNever) --fake_gpu().until_upload_fails;
  fake_copy_from_host(stream_of(stream), reinterpret_cast<void*>(to), from, bytes);
  return needs_context(0);
}
int cuMemsetD8Async(unsigned long long to, unsigned char value, std::size_t bytes, void* stream) {
  stream_of(stream)->add([=]() -> cudaError_t {
    if (!fake_is_allocated(reinterpret_cast<void*>(to), bytes)) return cudaErrorLaunchFailure;
    std::memset(reinterpret_cast<void*>(to), value, bytes);
    return cudaSuccess;
  });
  return needs_context(0);
}
int cuPointerGetAttribute(void* value, int attribute, unsigned long long address) {
  if (fake_block_of(reinterpret_cast<void*>(address)).begin == nullptr) return kInvalidValue;
  if (attribute == 3) *static_cast<unsigned long long*>(value) = address;
  if (attribute == 2) *static_cast<unsigned*>(value) = fake_gpu().memory_is_host ? 1 : 2;
  if (attribute == 8) *static_cast<unsigned*>(value) = 0;
  if (attribute == 9) *static_cast<int*>(value) = fake_gpu().ordinal;
  return 0;
}
int cuMemGetAddressRange_v2(unsigned long long* begin, std::size_t* bytes,
                            unsigned long long address) {
  const FakeBlock block = fake_block_of(reinterpret_cast<void*>(address));
  if (block.begin == nullptr) return kInvalidValue;
  *begin = reinterpret_cast<unsigned long long>(block.begin);
  *bytes = block.bytes;
  // Memory that was mapped in pieces has a range for each.
  const std::size_t piece = fake_gpu().bytes_of_range;
  if (piece == FakeGpu::kNever) return 0;
  *begin = address - (address - *begin) % piece;
  *bytes =
      std::min<std::size_t>(piece, block.bytes - (*begin - reinterpret_cast<unsigned long long>(block.begin)));
  return 0;
}

int cuModuleLoadData(void** module, const void* image) {
  if (std::strcmp(static_cast<const char*>(image), kFakeBinary) != 0) return kNoBinary;
  return *module = &contexts, needs_context(0);
}
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  const auto found = kernels().find(name);
  if (found == kernels().end()) return kInvalidValue;
  *function = const_cast<Kernel*>(&found->second);
  return 0;
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned, unsigned block_x,
                   unsigned block_y, unsigned, unsigned, void* stream, void** parameters, void**) {
  const Kernel& kernel = *static_cast<const Kernel*>(function);
  if (grid_x == 0 || grid_y == 0 || grid_y > 65535 || block_x * block_y > 1024)
    return kInvalidValue;
  const char* given = static_cast<const char*>(parameters[0]);
  const std::vector<char> arguments(given, given + kernel.bytes);
  stream_of(stream)->add([=]() -> cudaError_t {
    ++fake_gpu().kernels;
    gridDim = {grid_x, grid_y, 1};
    blockDim = {block_x, block_y, 1};
    for_each(gridDim, blockIdx,
             [&] { for_each(blockDim, threadIdx, [&] { kernel.run(arguments.data()); }); });
    return cudaSuccess;
  });
  return needs_context(0);
}

}  // extern "C"
