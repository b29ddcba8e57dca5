// Compiles the kernels for GPUs of some compute capabilities, with CUDA's compiler, which needs no GPU.
// Usage: compile_kernels CAPABILITY ..., such as 89 for 8.9
#include <cstdlib>
#include <exception>
#include <iostream>

#include "gpu_program.h"
#include "gpu_kernels.h"
#include "gpu_kernels_text.h"

int main(int argc, char** argv) {
  try {
    for (int i = 1; i < argc; ++i) {
      const std::string ptx =
          glesam::compile_for_gpu(kGpuKernelsText, "gpu_kernels.cu", std::atoi(argv[i]));
#define REQUIRE_ENTRY(name, Arguments)                                                     \
  if (ptx.find(".entry " #name "(") == std::string::npos) throw std::runtime_error("lacks" \
                                                                                   " " #name);
      GLESAM_KERNELS(REQUIRE_ENTRY)
      const std::size_t target = ptx.find(".target ");
      std::cout << argv[i] << ": " << ptx.substr(target, ptx.find('\n', target) - target) << "\n";
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
