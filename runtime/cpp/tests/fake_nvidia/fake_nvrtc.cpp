// CUDA's compiler for the fake GPU. It only checks that the text has the kernels, which the fake driver
// contains.
#include <cstring>
#include <string>

#include "fake_nvidia.h"
#include "gpu_kernels.h"

extern "C" {

const char* nvrtcGetErrorString(int) { return "the fake compiler failed"; }
int nvrtcGetNumSupportedArchs(int* count) { return *count = 3, 0; }
int nvrtcGetSupportedArchs(int* known) { return known[0] = 75, known[1] = 89, known[2] = 120, 0; }
int nvrtcCreateProgram(void** program, const char* text, const char*, int, const char* const*,
                       const char* const*) {
  return *program = new std::string(text), 0;
}
int nvrtcDestroyProgram(void** program) { return delete static_cast<std::string*>(*program), 0; }
int nvrtcCompileProgram(void* program, int count, const char* const* options) {
  const std::string& text = *static_cast<std::string*>(program);
  bool knows_all = !fake_gpu().compiler_fails;
#define REQUIRE(name, Arguments) knows_all = knows_all && text.find(#name) != std::string::npos;
  GLESAM_KERNELS(REQUIRE)
  if (!knows_all || count < 1 || std::strcmp(options[0], "--gpu-architecture=sm_89") != 0) {
    return 6;
  }
  ++fake_gpu().compiled;
  return 0;
}
int nvrtcGetProgramLogSize(void*, std::size_t* size) { return *size = sizeof "line 1\nline 2", 0; }
int nvrtcGetProgramLog(void*, char* log) { return std::strcpy(log, "line 1\nline 2"), 0; }
int nvrtcGetCUBINSize(void*, std::size_t* size) { return *size = std::strlen(kFakeBinary) + 1, 0; }
int nvrtcGetCUBIN(void*, char* code) { return std::strcpy(code, kFakeBinary), 0; }

int nvrtcGetPTXSize(void*, std::size_t*) { return 1; }
int nvrtcGetPTX(void*, char*) { return 1; }

}  // extern "C"
