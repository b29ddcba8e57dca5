#include "tensorrt_libraries.h"

#include "errors.h"
#include "text.h"

namespace glesam {
namespace {

constexpr int kHeaderMajor = NV_TENSORRT_MAJOR, kHeaderMinor = NV_TENSORRT_MINOR;

std::vector<std::string> tensorrt_names(const std::string& target, const std::string& library) {
  if (!library.empty()) return {library};
#ifdef _WIN32
  const std::string name = target == "tensorrt-rtx" ? "tensorrt_rtx_" : "nvinfer_";
  return target == "tensorrt-rtx" ? std::vector<std::string>{cat(name, kHeaderMajor, "_", kHeaderMinor, ".dll")}
                                  : std::vector<std::string>{cat(name, kHeaderMajor, ".dll")};
#else
  const std::string name = target == "tensorrt-rtx" ? "libtensorrt_rtx.so" : "libnvinfer.so";
  return {cat(name, ".", kHeaderMajor), name};
#endif
}

std::vector<std::string> cuda_names() {
  constexpr int kMajor = CUDART_VERSION / 1000;
#ifdef _WIN32
  return {cat("cudart64_", kMajor, ".dll")};
#else
  return {cat("libcudart.so.", kMajor), "libcudart.so"};
#endif
}

}  // namespace

Cuda::Cuda(const std::string& device, int index)
    : library_("the CUDA runtime", cuda_names(),
               cat("install CUDA ", CUDART_VERSION / 1000, "'s runtime library")),
      device_(index),
      get_error_string(library_.function<decltype(cudaGetErrorString)>("cudaGetErrorString")),
      get_device_count(library_.function<decltype(cudaGetDeviceCount)>("cudaGetDeviceCount")),
      set_device(library_.function<decltype(cudaSetDevice)>("cudaSetDevice")),
      device_get_attribute(
          library_.function<decltype(cudaDeviceGetAttribute)>("cudaDeviceGetAttribute")),
      malloc(library_.function<cudaError_t(void**, std::size_t)>("cudaMalloc")),
      free(library_.function<cudaError_t(void*)>("cudaFree")),
      memcpy_async(library_.function<cudaError_t(void*, const void*, std::size_t, cudaMemcpyKind,
                                                 cudaStream_t)>("cudaMemcpyAsync")),
      stream_create(library_.function<cudaError_t(cudaStream_t*)>("cudaStreamCreate")),
      stream_destroy(library_.function<cudaError_t(cudaStream_t)>("cudaStreamDestroy")),
      stream_synchronize(library_.function<cudaError_t(cudaStream_t)>("cudaStreamSynchronize")) {
  int count = 0;
  require(get_device_count(&count), "looking for a GPU");
  if (index >= count) {
    backend_error(cat("device ", py_repr(device), ": this machine has ", count, " CUDA devices"));
  }
  require(set_device(index), "choosing the GPU");
  int major = 0, minor = 0;
  require(device_get_attribute(&major, cudaDevAttrComputeCapabilityMajor, index), "asking the GPU");
  require(device_get_attribute(&minor, cudaDevAttrComputeCapabilityMinor, index), "asking the GPU");
  capability_ = cat(major, ".", minor);
}

void Cuda::require(cudaError_t code, const char* what) const {
  if (code == cudaSuccess) return;
  if (code == cudaErrorMemoryAllocation) throw std::bad_alloc();
  backend_error(cat("CUDA failed in ", what, ": ", get_error_string(code)));
}

void TensorrtLog::log(Severity severity, const char* message) noexcept {
  if (severity > Severity::kERROR || message == nullptr) return;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    last_ = message;
  } catch (const std::exception&) {
    // The message is lost without memory or lock, but the failed call still reports an error.
  }
}

std::string TensorrtLog::take(const char* otherwise) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string text = last_.empty() ? otherwise : one_line(last_);
  last_.clear();
  return text;
}

TensorrtLibrary::TensorrtLibrary(const std::string& target, const std::string& library)
    : library_(
          target, tensorrt_names(target, library),
          cat("install ", target, " ", kHeaderMajor, ", or name its library: engine_library")) {
  using Number = std::int32_t();
  const int major = library_.function<Number>("getInferLibMajorVersion")();
  const int minor = library_.function<Number>("getInferLibMinorVersion")();
  version_ = cat(major, ".", minor);
  if (major != kHeaderMajor) {
    backend_error(cat(library_.name(), ": ", target, " ", version_,
                      ", but this library was compiled against ", kHeaderMajor, ".", kHeaderMinor,
                      "; install that version, or compile against the other's headers"));
  }
}

std::unique_ptr<nvinfer1::IRuntime> TensorrtLibrary::create_runtime(TensorrtLog& log) const {
  auto* create = library_.function<void*(void*, std::int32_t)>("createInferRuntime_INTERNAL");
  std::unique_ptr<nvinfer1::IRuntime> runtime(
      static_cast<nvinfer1::IRuntime*>(create(&log, NV_TENSORRT_VERSION)));
  if (!runtime) {
    backend_error(cat(library_.name(), ": cannot be started: ", log.take("no reason given")));
  }
  return runtime;
}

}  // namespace glesam
