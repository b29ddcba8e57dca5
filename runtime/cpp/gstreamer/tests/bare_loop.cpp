// Runs the library on raw RGB frames as glesamsegment does, without GStreamer.
// Usage: bare_loop BUNDLE FRAMES WIDTH HEIGHT X Y
//
// FRAMES is a file of RGB pixels. X,Y is the prompt of each frame. It prints the frames a second from
// the tenth to the last.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "glesam_c.h"

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: bare_loop BUNDLE FRAMES WIDTH HEIGHT X Y\n");
    return 2;
  }
  glesam_params params = glesam_default_params();
  glesam_predictor* predictor = nullptr;
  char message[512];
  if (glesam_open(argv[1], &params, &predictor, message, sizeof message) != GLESAM_OK) {
    std::fprintf(stderr, "error: %s\n", message);
    return 1;
  }
  glesam_frame frame{};
  frame.struct_size = sizeof frame;
  frame.width = std::atoi(argv[3]);
  frame.height = std::atoi(argv[4]);
  const double point[] = {std::atof(argv[5]), std::atof(argv[6])};
  const float label[] = {1};
  glesam_prompts prompts{};
  prompts.count = 1;
  prompts.points = point;
  prompts.labels = label;
  prompts.points_per_prompt = 1;
  glesam_request request{};
  request.struct_size = sizeof request;
  request.skip_masks = 1;
  request.rle = 1;

  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(frame.width) *
                                   static_cast<std::size_t>(frame.height) * 3);
  frame.planes[0] = pixels.data();
  std::ifstream file(argv[2], std::ios::binary);
  using Clock = std::chrono::steady_clock;
  Clock::time_point tenth, last;
  int frames = 0;
  while (file.read(reinterpret_cast<char*>(pixels.data()),
                   static_cast<std::streamsize>(pixels.size()))) {
    glesam_output found{};
    found.struct_size = sizeof found;
    if (glesam_set_frame(predictor, &frame) != GLESAM_OK ||
        glesam_predict_as(predictor, &prompts, &request, &found) != GLESAM_OK) {
      std::fprintf(stderr, "error: %s\n", glesam_message(predictor));
      return 1;
    }
    last = Clock::now();
    if (++frames == 10) tenth = last;
  }
  glesam_close(predictor);
  std::printf("%.3f\n", (frames - 10) / std::chrono::duration<double>(last - tenth).count());
}
