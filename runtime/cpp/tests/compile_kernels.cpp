// Compiles the kernels for GPUs of some compute capabilities, with CUDA's compiler, which needs no GPU.
// Usage: compile_kernels CUDA CAPABILITY ..., such as 12 for CUDA 12 and 89 for 8.9
#include <cstdlib>
#include <exception>
#include <iostream>

#include "gpu_kernels.h"
#include "gpu_kernels_text.h"
#include "gpu_program.h"

int main(int argc, char** argv) {
  try {
    if (argc < 2) return 2;
    for (int i = 2; i < argc; ++i) {
      const std::string image = glesam::compile_for_gpu(kGpuKernelsText, "gpu_kernels.cu",
                                                        std::atoi(argv[i]), std::atoi(argv[1]));
#define REQUIRE_ENTRY(name, Arguments) \
  if (image.find(#name) == std::string::npos) throw std::runtime_error("lacks " #name);
      GLESAM_KERNELS(REQUIRE_ENTRY)
      const bool code = image.substr(1, 3) == "ELF";
      const std::size_t target = image.find(".target ");
      std::cout << argv[i] << ": "
                << (code ? "machine code" : image.substr(target, image.find('\n', target) - target))
                << "\n";
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
