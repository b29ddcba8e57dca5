// Preprocesses the frames of a safetensors file (frame_cases.h) on the fake GPU, by the kernels of the
// library, and writes the encoder's inputs. A read of the frame by the host crashes.
// Usage: gpu_frames BUNDLE CASES RESULTS
#include "gpu_frames.h"

#include <algorithm>
#include <iostream>

#include "bundle.h"
#include "fake_gpu_memory.h"
#include "frame_cases.h"
#include "safetensors_writer.h"

int main(int argc, char** argv) {
  using namespace glesam_tests;
  if (argc != 4) return 2;
  try {
    const glesam::Preprocessing rules = glesam::open_bundle(argv[1]).manifest.preprocessing;
    const glesam::StoredTensors cases = glesam::read_safetensors(argv[2]);
    const auto size = static_cast<std::size_t>(rules.image_size);
    glesam::GpuFrames frames(std::make_shared<const glesam::GpuProgram>(0));
    SafetensorsWriter results;
    for (int i = 0; has_case(cases, i); ++i) {
      const FrameCase given = read_case(cases, i);
      const GpuCopy copy(given.memory);
      glesam::Frame frame = given.in(copy.data());
      frame.memory = glesam::Memory::cuda;
      frames.begin(1, rules);
      frames.add(0, frame, rules, {});
      results.add(std::to_string(i) + ".tensor", "F32", {1, 3, size, size},
                  to_host(frames.finish()));
    }
    results.write(argv[3]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
