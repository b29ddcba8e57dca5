#include "gpu_driver.h"

#include <algorithm>
#include <new>

#include "errors.h"
#include "text.h"

namespace glesam {
namespace {

// CUDA_ERROR_OUT_OF_MEMORY, _NO_BINARY_FOR_GPU and _UNSUPPORTED_PTX_VERSION.
constexpr int kErrorOutOfMemory = 2, kErrorNoBinary = 209, kErrorUnsupportedPtx = 222;
constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_...

#ifdef _WIN32
constexpr const char* kDriver = "nvcuda.dll";
#else
constexpr const char* kDriver = "libcuda.so.1";
#endif

}  // namespace

GpuDriver::GpuDriver(int device)
    : library_("the CUDA driver", {kDriver}, "install NVIDIA's driver"),
      device_(device),
      init(find<unsigned>("cuInit")),
      driver_get_version(find<int*>("cuDriverGetVersion")),
      device_get(find<int*, int>("cuDeviceGet")),
      device_get_attribute(find<int*, int, int>("cuDeviceGetAttribute")),
      primary_context_retain(find<GpuContext*, int>("cuDevicePrimaryCtxRetain")),
      primary_context_release(find<int>("cuDevicePrimaryCtxRelease_v2")),
      context_push(find<GpuContext>("cuCtxPushCurrent_v2")),
      context_pop(find<GpuContext*>("cuCtxPopCurrent_v2")),
      get_error_string(find<int, const char**>("cuGetErrorString")),
      stream_create(find<GpuStream*, unsigned>("cuStreamCreate")),
      stream_destroy(find<GpuStream>("cuStreamDestroy_v2")),
      stream_synchronize(find<GpuStream>("cuStreamSynchronize")),
      stream_wait_event(find<GpuStream, GpuEvent, unsigned>("cuStreamWaitEvent")),
      event_create(find<GpuEvent*, unsigned>("cuEventCreate")),
      event_record(find<GpuEvent, GpuStream>("cuEventRecord")),
      event_destroy(find<GpuEvent>("cuEventDestroy_v2")),
      allocate(find<GpuAddress*, std::size_t>("cuMemAlloc_v2")),
      free(find<GpuAddress>("cuMemFree_v2")),
      copy_from_host(find<GpuAddress, const void*, std::size_t, GpuStream>("cuMemcpyHtoDAsync_v2")),
      fill(find<GpuAddress, unsigned char, std::size_t, GpuStream>("cuMemsetD8Async")),
      pointer_get_attribute(find<void*, int, GpuAddress>("cuPointerGetAttribute")),
      get_address_range(find<GpuAddress*, std::size_t*, GpuAddress>("cuMemGetAddressRange_v2")),
      module_load(find<GpuModule*, const void*>("cuModuleLoadData")),
      module_unload(find<GpuModule>("cuModuleUnload")),
      module_get_function(find<GpuFunction*, GpuModule, const char*>("cuModuleGetFunction")),
      launch(find<GpuFunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                  GpuStream, void**, void**>("cuLaunchKernel")) {
  require(init(0), "starting the driver");
  require(driver_get_version(&version_), "asking the driver");
  version_ /= 1000;
  int handle = 0, major = 0, minor = 0;
  require(device_get(&handle, device), "looking for the GPU");
  require(device_get_attribute(&major, kCapabilityMajor, handle), "asking the GPU");
  require(device_get_attribute(&minor, kCapabilityMinor, handle), "asking the GPU");
  capability_ = 10 * major + minor;
  require(primary_context_retain(&context_, handle), "using the GPU");
}

GpuDriver::~GpuDriver() {
  int handle = 0;
  if (device_get(&handle, device_) == 0) primary_context_release(handle);
}

void GpuDriver::require(int code, const char* what) const {
  if (code == 0) return;
  if (code == kErrorOutOfMemory) throw std::bad_alloc();
  // The driver cannot load what this compiler made.
  const bool too_new = code == kErrorUnsupportedPtx || code == kErrorNoBinary;
  const char* said = nullptr;
  get_error_string(code, &said);
  backend_error(
      cat("CUDA failed in ", what, ": ", said != nullptr ? std::string(said) : cat("error ", code),
          too_new ? cat("; install the libnvrtc of CUDA ", version_, ", the driver's") : ""));
}

GpuDriver::Current::Current(const GpuDriver& driver) : driver_(driver) {
  driver.require(driver.context_push(driver.context_), "using the GPU");
}

GpuDriver::Current::~Current() {
  GpuContext popped = nullptr;
  driver_.context_pop(&popped);
}

GpuMemory::GpuMemory(std::shared_ptr<const GpuDriver> driver, std::size_t bytes)
    : driver_(std::move(driver)), bytes_(std::max<std::size_t>(bytes, 1)) {
  const GpuDriver::Current current(*driver_);
  driver_->require(driver_->allocate(&address_, bytes_), "allocating memory");
}

GpuMemory::~GpuMemory() {
  try {
    const GpuDriver::Current current(*driver_);
    driver_->free(address_);
  } catch (const std::exception&) {
    // A GPU whose context cannot be used any more has no memory to free.
  }
}

}  // namespace glesam
