// An ONNX Runtime whose CUDA provider computes on the fake GPU: the real one, with the CPU in the place
// of CUDA. The environment variable GLESAM_REAL_ONNXRUNTIME names its library.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstdlib>
#include <cstring>

#include "fake_nvidia.h"

namespace {

const OrtApi* real = nullptr;
OrtApi changed;

OrtStatus* ORT_API_CALL create_options(OrtCUDAProviderOptionsV2** options) noexcept {
  static int place = 0;
  *options = reinterpret_cast<OrtCUDAProviderOptionsV2*>(&place);
  return nullptr;
}
OrtStatus* ORT_API_CALL update_options(OrtCUDAProviderOptionsV2*, const char* const*,
                                       const char* const*, size_t) noexcept {
  return nullptr;
}
void ORT_API_CALL release_options(OrtCUDAProviderOptionsV2*) noexcept {}
OrtStatus* ORT_API_CALL append(OrtSessionOptions*, const OrtCUDAProviderOptionsV2*) noexcept {
  return nullptr;
}
OrtStatus* ORT_API_CALL create_memory_info(const char* name, OrtAllocatorType type, int id,
                                           OrtMemType memory, OrtMemoryInfo** info) noexcept {
  return real->CreateMemoryInfo(std::strcmp(name, "Cuda") == 0 ? "Cpu" : name, type, id, memory,
                                info);
}
OrtStatus* ORT_API_CALL run(OrtSession* session, const OrtRunOptions* options,
                            const char* const* input_names, const OrtValue* const* inputs,
                            size_t input_count, const char* const* output_names,
                            size_t output_count, OrtValue** outputs) noexcept {
  const FakeGpuAtWork working;
  return real->Run(session, options, input_names, inputs, input_count, output_names, output_count,
                   outputs);
}

const OrtApi* ORT_API_CALL get_api(uint32_t version) noexcept {
  const char* name = std::getenv("GLESAM_REAL_ONNXRUNTIME");
  void* library = name != nullptr ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (library == nullptr) return nullptr;  // which the backend reports
  const auto get = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  real = get()->GetApi(version);
  changed = *real;
  changed.CreateCUDAProviderOptions = create_options;
  changed.UpdateCUDAProviderOptions = update_options;
  changed.ReleaseCUDAProviderOptions = release_options;
  changed.SessionOptionsAppendExecutionProvider_CUDA_V2 = append;
  changed.CreateMemoryInfo = create_memory_info;
  changed.Run = run;
  return &changed;
}
const char* ORT_API_CALL get_version() noexcept { return "99.0"; }

}  // namespace

extern "C" const OrtApiBase* OrtGetApiBase() {
  static const OrtApiBase base{get_api, get_version};
  return &base;
}
