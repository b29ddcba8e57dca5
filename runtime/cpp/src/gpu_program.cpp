#include "gpu_program.h"

#include <algorithm>
#include <vector>

#include "errors.h"
#include "gpu_kernels_text.h"
#include "text.h"

namespace glesam {
namespace {

// Returns the names of the compiler's library, that of the driver's version first and newer ones never.
std::vector<std::string> compiler_names(int cuda) {
  std::vector<std::string> names;
  for (int major = cuda; major >= 11; --major) {
#ifdef _WIN32
    names.push_back(cat("nvrtc64_", major, major == 11 ? "2_0.dll" : "0_0.dll"));
#else
    names.push_back(cat("libnvrtc.so.", major, major == 11 ? ".2" : ""));
#endif
  }
  return names;
}

constexpr int kBlockWidth = 32, kBlockHeight = 8;
constexpr int kMostBlocksInY = 65'535;

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
  std::string machine_code() const { return text("nvrtcGetCUBINSize", "nvrtcGetCUBIN"); }

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

std::string compile_for_gpu(const char* text, const char* name, int compute_capability, int cuda) {
  const DynamicLibrary library(
      "CUDA's compiler, which a frame in CUDA memory needs,", compiler_names(cuda),
      cat("install the libnvrtc of CUDA ", cuda,
          ", the driver's, where the loader finds it, or pass frames in the host's memory"));
  const int known = architecture_for(library, compute_capability);
  const bool exact = known == compute_capability;
  const std::string target = cat("--gpu-architecture=", exact ? "sm_" : "compute_", known);
  Program program(library, text, name);
  program.compile({target.c_str(), "--std=c++17"});
  return exact ? program.machine_code() : program.ptx();
}

GpuProgram::GpuProgram(int device) : driver_(std::make_shared<const GpuDriver>(device)) {
  const std::string image = compile_for_gpu(kGpuKernelsText, "gpu_kernels.cu",
                                            driver_->compute_capability(), driver_->version());
  const GpuDriver::Current current(*driver_);
  driver_->require(driver_->module_load(&module_, image.c_str()), "loading the kernels");
  const auto add = [this](const char* name) {
    const int code = driver_->module_get_function(&functions_[name], module_, name);
    if (code != 0) driver_->module_unload(module_);
    driver_->require(code, "loading the kernels");
  };
#define GLESAM_ADD(name, Arguments) add(#name);
  GLESAM_KERNELS(GLESAM_ADD)
#undef GLESAM_ADD
}

GpuProgram::~GpuProgram() {
  try {
    const GpuDriver::Current current(*driver_);
    driver_->module_unload(module_);
  } catch (const std::exception&) {
    // A GPU whose context cannot be used any more has no module to unload.
  }
}

void GpuProgram::launch(const char* name, const void* arguments, int width, int height,
                        GpuStream stream) const {
  const auto blocks = [](int size, int block) {
    return static_cast<unsigned>((static_cast<std::int64_t>(size) + block - 1) / block);
  };
  void* parameters[] = {const_cast<void*>(arguments)};
  driver_->require(driver_->launch(functions_.at(name), blocks(width, kBlockWidth),
                                   std::min<unsigned>(blocks(height, kBlockHeight), kMostBlocksInY),
                                   1, kBlockWidth, kBlockHeight, 1, 0, stream, parameters, nullptr),
                   "reading a frame");
}

}  // namespace glesam
