// The functions of the CUDA driver that read frames on a GPU. The library is loaded at run time. Its
// types are declared here, so that this needs no headers of NVIDIA's and is compiled everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "dynamic_library.h"

namespace glesam {

// cuda.h's types.
using GpuAddress = unsigned long long;  // CUdeviceptr
using GpuStream = void*;                // CUstream, which is also cudaStream_t
using GpuEvent = void*;
using GpuContext = void*;
using GpuModule = void*;
using GpuFunction = void*;

// The driver, and the context of one device that the CUDA runtime also uses (the primary one).
class GpuDriver {
 public:
  // Throws Error (backend) if there is no driver or no such device.
  explicit GpuDriver(int device);
  ~GpuDriver();
  GpuDriver(const GpuDriver&) = delete;
  GpuDriver& operator=(const GpuDriver&) = delete;

  int device() const { return device_; }
  int compute_capability() const { return capability_; }  // 89 for 8.9
  int version() const { return version_; }                // of CUDA, 12 for 12.2

  // Throws std::bad_alloc if `code` says that memory ran out, and Error (backend) with the driver's
  // message for any other error.
  void require(int code, const char* what) const;

  // Makes the device's context current in this thread, and then the one before again.
  class Current {
   public:
    explicit Current(const GpuDriver& driver);
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

   private:
    const GpuDriver& driver_;
  };

 private:
  const DynamicLibrary library_;
  const int device_;
  int capability_ = 0, version_ = 0;
  GpuContext context_ = nullptr;

 public:
  // cuda.h's functions. They return a code, which is 0 on success.
  template <typename... Arguments>
  using Function = int (*)(Arguments...);
  const Function<unsigned> init;
  const Function<int*> driver_get_version;
  const Function<int*, int> device_get;
  const Function<int*, int, int> device_get_attribute;
  const Function<GpuContext*, int> primary_context_retain;
  const Function<int> primary_context_release;
  const Function<GpuContext> context_push;
  const Function<GpuContext*> context_pop;
  const Function<int, const char**> get_error_string;
  const Function<GpuStream*, unsigned> stream_create;
  const Function<GpuStream> stream_destroy;
  const Function<GpuStream> stream_synchronize;
  const Function<GpuStream, GpuEvent, unsigned> stream_wait_event;
  const Function<GpuEvent*, unsigned> event_create;
  const Function<GpuEvent, GpuStream> event_record;
  const Function<GpuEvent> event_destroy;
  const Function<GpuAddress*, std::size_t> allocate;
  const Function<GpuAddress> free;
  const Function<GpuAddress, const void*, std::size_t, GpuStream> copy_from_host;
  const Function<GpuAddress, unsigned char, std::size_t, GpuStream> fill;
  const Function<void*, int, GpuAddress> pointer_get_attribute;
  const Function<GpuAddress*, std::size_t*, GpuAddress> get_address_range;
  const Function<GpuModule*, const void*> module_load;
  const Function<GpuModule> module_unload;
  const Function<GpuFunction*, GpuModule, const char*> module_get_function;
  const Function<GpuFunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                 GpuStream, void**, void**>
      launch;

 private:
  template <typename... Arguments>
  Function<Arguments...> find(const char* symbol) const {
    return library_.function<int(Arguments...)>(symbol);
  }
};

// Memory on the GPU.
class GpuMemory {
 public:
  // Throws std::bad_alloc.
  GpuMemory(std::shared_ptr<const GpuDriver> driver, std::size_t bytes);
  ~GpuMemory();
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;

  std::size_t bytes() const { return bytes_; }
  template <typename Value>
  Value* as() const {
    return reinterpret_cast<Value*>(static_cast<std::uintptr_t>(address_));
  }
  GpuAddress address() const { return address_; }

 private:
  const std::shared_ptr<const GpuDriver> driver_;
  const std::size_t bytes_;
  GpuAddress address_ = 0;
};

}  // namespace glesam
