/* A program as it was written for 0.1: it is compiled with the header of 0.1, which lies beside it, and
 * runs with today's library. Bytes behind each struct show whether the library writes or reads beyond
 * what 0.1 knew. Usage: abi_0_1 BUNDLE */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "glesam_c.h"

#define CHECK(condition)                                  \
  if (!(condition)) {                                     \
    printf("FAILED line %d: %s\n", __LINE__, #condition); \
    return 1;                                             \
  }

#define WIDTH 64
#define HEIGHT 48

/* A struct with bytes of 0xee behind it. */
#define GUARDED(type)          \
  struct {                     \
    type value;                \
    unsigned char behind[256]; \
  }
#define FILL(guarded) memset(&(guarded), 0xee, sizeof(guarded))

static int intact(const unsigned char* behind) {
  int i;
  for (i = 0; i < 256; ++i) {
    if (behind[i] != 0xee) return 0;
  }
  return 1;
}

int main(int argc, char** argv) {
  static uint8_t rgb[WIDTH * HEIGHT * 3];
  static uint8_t masks[2 * WIDTH * HEIGHT];
  double boxes[8] = {5, 5, 40, 40, 10, 8, 60, 44};
  GUARDED(glesam_params) params;
  GUARDED(glesam_prompts) prompts;
  GUARDED(glesam_result) result;
  GUARDED(glesam_frame) frame;
  GUARDED(glesam_request) request;
  GUARDED(glesam_output) output;
  glesam_predictor* predictor = NULL;
  glesam_features* features = NULL;
  char message[300];
  size_t i;
  CHECK(argc == 2);
  for (i = 0; i < sizeof rgb; ++i) rgb[i] = (uint8_t)(i * 31 % 251);
  FILL(params);
  params.value = glesam_default_params();
  CHECK(intact(params.behind));
  params.value.threads = 1;
  CHECK(glesam_open(argv[1], &params.value, &predictor, message, sizeof message) == GLESAM_OK);
  CHECK(glesam_set_image(predictor, rgb, WIDTH, HEIGHT, 0) == GLESAM_OK);

  FILL(prompts);
  memset(&prompts.value, 0, sizeof prompts.value);
  prompts.value.count = 2;
  prompts.value.boxes = boxes;
  FILL(result);
  CHECK(glesam_predict(predictor, &prompts.value, 0, &result.value) == GLESAM_OK);
  CHECK(intact(result.behind));
  CHECK(result.value.count == 2 && result.value.width == WIDTH && result.value.height == HEIGHT);
  memcpy(masks, result.value.masks, sizeof masks);

  FILL(frame);
  memset(&frame.value, 0, sizeof frame.value);
  frame.value.struct_size = sizeof frame.value;
  frame.value.format = GLESAM_FORMAT_RGB;
  frame.value.width = WIDTH;
  frame.value.height = HEIGHT;
  frame.value.planes[0] = rgb;
  CHECK(glesam_set_frame(predictor, &frame.value) == GLESAM_OK);
  FILL(request);
  memset(&request.value, 0, sizeof request.value);
  request.value.struct_size = sizeof request.value;
  request.value.rle = 1;
  FILL(output);
  output.value.struct_size = sizeof output.value;
  CHECK(glesam_predict_as(predictor, &prompts.value, &request.value, &output.value) == GLESAM_OK);
  CHECK(intact(output.behind));
  CHECK(output.value.struct_size == sizeof output.value);
  CHECK(memcmp(output.value.masks, masks, sizeof masks) == 0);
  CHECK(strlen(output.value.rle[1]) > 0 && output.value.areas[0] > 0);

  CHECK(glesam_get_features(predictor, &features) == GLESAM_OK);
  CHECK(glesam_set_features(predictor, features) == GLESAM_OK);
  prompts.value.count = 0;
  CHECK(glesam_predict(predictor, &prompts.value, 0, &result.value) == GLESAM_INVALID_INPUT);
  CHECK(strstr(glesam_message(predictor), "count is 0") != NULL);
  glesam_free_features(features);
  glesam_close(predictor);
  printf("a program of %s passed with %s\n", GLESAM_VERSION, glesam_version());
  return 0;
}
