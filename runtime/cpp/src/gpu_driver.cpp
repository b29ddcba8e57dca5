#include "gpu_driver.h"

#include <algorithm>
#include <new>

#include "errors.h"
#include "text.h"

namespace glesam {
namespace {

constexpr int kErrorOutOfMemory = 2;                         // CUDA_ERROR_OUT_OF_MEMORY
constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_...

#ifdef _WIN32
const std::vector<std::string> kDriver{"nvcuda.dll"};
const std::vector<std::string> kCompiler{"nvrtc64_130_0.dll", "nvrtc64_120_0.dll",
                                         "nvrtc64_112_0.dll"};
#else
const std::vector<std::string> kDriver{"libcuda.so.1"};
const std::vector<std::string> kCompiler{"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2",
                                         "libnvrtc.so"};
#endif

// A program of CUDA's compiler (nvrtc.h).
class Program {
 public:
  Program(const DynamicLibrary& library, const char* text, const char* name)
      : library_(library), destroy_(library.function<int(void**)>("nvrtcDestroyProgram")) {
    auto* create = library.function<int(void**, const char*, const char*, int, const char* const*,
                                        const char* const*)>("nvrtcCreateProgram");
    require(create(&handle_, text, name, 0, nullptr, nullptr));
  }
  ~Program() { destroy_(&handle_); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Throws Error (backend) with the compiler's message.
  void compile(const std::vector<const char*>& options) {
    auto* compile = library_.function<int(void*, int, const char* const*)>("nvrtcCompileProgram");
    const int code = compile(handle_, static_cast<int>(options.size()), options.data());
    if (code == 0) return;
    const std::string log = text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
    backend_error(cat(library_.name(), ": cannot compile the kernels: ", one_line(log.c_str())));
  }

  std::string ptx() const { return text("nvrtcGetPTXSize", "nvrtcGetPTX"); }

 private:
  void require(int code) const {
    if (code == 0) return;
    auto* said = library_.function<const char*(int)>("nvrtcGetErrorString");
    backend_error(cat(library_.name(), ": ", said(code)));
  }

  std::string text(const char* size_function, const char* text_function) const {
    std::size_t size = 0;
    require(library_.function<int(void*, std::size_t*)>(size_function)(handle_, &size));
    std::string text(size, '\0');
    require(library_.function<int(void*, char*)>(text_function)(handle_, text.data()));
    return text;
  }

  const DynamicLibrary& library_;
  int (*const destroy_)(void**);
  void* handle_ = nullptr;
};

// Returns the newest architecture that the compiler knows and the GPU runs; the driver compiles it
// further for newer GPUs.
int architecture_for(const DynamicLibrary& library, int compute_capability) {
  int count = 0;
  library.function<int(int*)>("nvrtcGetNumSupportedArchs")(&count);
  std::vector<int> known(static_cast<std::size_t>(std::max(count, 0)));
  library.function<int(int*)>("nvrtcGetSupportedArchs")(known.data());
  int chosen = 0;
  for (const int each : known) {
    if (each <= compute_capability) chosen = std::max(chosen, each);
  }
  if (chosen != 0) return chosen;
  backend_error(cat(library.name(), ": does not compile for GPUs of compute capability ",
                    compute_capability / 10, ".", compute_capability % 10,
                    "; install the libnvrtc of a CUDA version that supports this GPU"));
}

}  // namespace

GpuDriver::GpuDriver(int device)
    : library_("the CUDA driver", kDriver, "install NVIDIA's driver"),
      device_(device),
      init(find<unsigned>("cuInit")),
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
  const char* said = nullptr;
  get_error_string(code, &said);
  backend_error(cat("CUDA failed in ", what, ": ",
                    said != nullptr ? std::string(said) : cat("error ", code)));
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

std::string compile_for_gpu(const char* text, const char* name, int compute_capability) {
  const DynamicLibrary library(
      "CUDA's compiler, which a frame in CUDA memory needs,", kCompiler,
      "install CUDA's libnvrtc where the loader finds it, or pass frames in the host's memory");
  const std::string target =
      cat("--gpu-architecture=compute_", architecture_for(library, compute_capability));
  Program program(library, text, name);
  program.compile({target.c_str(), "--std=c++17"});
  return program.ptx();
}

}  // namespace glesam
