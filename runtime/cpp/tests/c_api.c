/* Tests the C API from a C program. Usage: c_api BUNDLE */
#include "glesam_c.h"

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                  \
  if (!(condition)) {                                     \
    printf("FAILED line %d: %s\n", __LINE__, #condition); \
    return 1;                                             \
  }

#define SIDE 64

static uint8_t image[SIDE * SIDE * 3];
static double boxes_of_48[48 * 4];
static glesam_prompts many;

/* Returns the first of the low-resolution logits of a box, or a negative code. */
static int logit(const char* bundle, const glesam_params* params, float* value) {
  glesam_predictor* predictor = NULL;
  glesam_prompts one = many;
  glesam_result result;
  int code = glesam_open(bundle, params, &predictor, NULL, 0);
  one.count = 1;
  if (code == 0) code = glesam_set_image(predictor, image, SIDE, SIDE, 0);
  if (code == 0) code = glesam_predict(predictor, &one, 0, &result);
  if (code == 0) *value = result.low_res[0];
  glesam_close(predictor);
  return code;
}

/* A bottom-up BGR frame inside a larger one gives the result of its pixels as top-down RGB. */
static int frames(const char* bundle) {
  static uint8_t bgr[(SIDE + 2) * (SIDE + 5) * 3];
  struct {
    glesam_frame frame;
    size_t later;
  } newer;
  glesam_frame frame;
  glesam_predictor* predictor = NULL;
  glesam_prompts one = many;
  glesam_result result;
  float wanted;
  int x, y, c;
  for (y = 0; y < SIDE; ++y) {
    for (x = 0; x < SIDE; ++x) {
      for (c = 0; c < 3; ++c) {
        bgr[((SIDE - y) * (SIDE + 5) + x + 3) * 3 + c] = image[(y * SIDE + x) * 3 + 2 - c];
      }
    }
  }
  one.count = 1;
  memset(&frame, 0, sizeof frame);
  frame.struct_size = sizeof frame;
  frame.format = GLESAM_FORMAT_BGR;
  frame.width = SIDE + 5;
  frame.height = SIDE + 2;
  frame.planes[0] = bgr + (SIDE + 1) * (SIDE + 5) * 3;
  frame.strides[0] = -(SIDE + 5) * 3;
  frame.region_x = 3;
  frame.region_y = 1;
  frame.region_width = frame.region_height = SIDE;
  CHECK(glesam_open(bundle, NULL, &predictor, NULL, 0) == GLESAM_OK);
  CHECK(glesam_set_image(predictor, image, SIDE, SIDE, 0) == GLESAM_OK);
  CHECK(glesam_predict(predictor, &one, 0, &result) == GLESAM_OK);
  wanted = result.low_res[0];
  CHECK(glesam_set_frame(predictor, &frame) == GLESAM_OK);
  CHECK(glesam_predict(predictor, &one, 0, &result) == GLESAM_OK);
  CHECK(result.low_res[0] == wanted && result.width == SIDE && result.height == SIDE);

  CHECK(glesam_set_frame(NULL, &frame) == GLESAM_INVALID_INPUT);
  CHECK(glesam_set_frame(predictor, NULL) == GLESAM_INVALID_INPUT);
  CHECK(strstr(glesam_message(predictor), "frame: a null pointer") != NULL);
  /* An older caller's struct ends earlier. A newer one's must not use its new fields. */
  frame.struct_size = offsetof(glesam_frame, yuv_matrix);
  CHECK(glesam_set_frame(predictor, &frame) == GLESAM_OK);
  frame.struct_size = 0;
  CHECK(glesam_set_frame(predictor, &frame) == GLESAM_INVALID_INPUT);
  CHECK(strstr(glesam_message(predictor), "struct_size is 0") != NULL);
  frame.struct_size = sizeof frame;
  memset(&newer, 0, sizeof newer);
  newer.frame = frame;
  newer.frame.struct_size = sizeof newer;
  CHECK(glesam_set_frame(predictor, &newer.frame) == GLESAM_OK);
  newer.later = 1;
  CHECK(glesam_set_frame(predictor, &newer.frame) == GLESAM_INVALID_INPUT);
  CHECK(strstr(glesam_message(predictor), "field of a later version") != NULL);
  glesam_close(predictor);
  return 0;
}

/* All forms of a mask agree, and features are set again. */
static int forms(const char* bundle) {
  static uint8_t buffer[SIDE * SIDE];
  glesam_predictor *predictor = NULL, *other = NULL;
  glesam_features *features = NULL, *untouched = NULL, *both[2];
  glesam_frame frame;
  const glesam_frame* frames[2];
  glesam_prompts one = many;
  glesam_request request;
  glesam_result result;
  struct {
    glesam_output output;
    size_t later;
  } newer;
  glesam_output* output = &newer.output;
  int64_t area = 0;
  float first;
  int i;
  one.count = 1;
  memset(&request, 0, sizeof request);
  request.struct_size = sizeof request;
  request.rle = request.packed = request.logits = 1;
  request.mask_buffer = buffer;
  request.mask_buffer_size = sizeof buffer;
  memset(&newer, 1, sizeof newer);
  output->struct_size = sizeof newer;
  CHECK(glesam_open(bundle, NULL, &predictor, NULL, 0) == GLESAM_OK);
  CHECK(glesam_get_features(predictor, &untouched) == GLESAM_INVALID_INPUT && untouched == NULL);
  CHECK(glesam_set_image(predictor, image, SIDE, SIDE, 0) == GLESAM_OK);
  CHECK(glesam_predict(predictor, &one, 0, &result) == GLESAM_OK);
  first = result.low_res[0];
  for (i = 0; i < SIDE * SIDE; ++i) area += result.masks[i];
  CHECK(glesam_predict_as(predictor, &one, &request, output) == GLESAM_OK);
  CHECK(output->struct_size == sizeof newer && newer.later == 0);
  CHECK(output->count == 1 && output->masks_per_prompt == 1 && output->width == SIDE);
  CHECK(output->masks == NULL && output->low_res[0] == first && output->areas[0] == area);
  for (i = 0; i < SIDE * SIDE; ++i) {
    CHECK(buffer[i] == (output->logits[i] > 0));
    CHECK(buffer[i] == ((output->packed[i / 8] >> (7 - i % 8)) & 1));
  }
  CHECK(output->boxes[0].width <= SIDE && strlen(output->rle[0]) > 0);
  CHECK(glesam_predict_as(predictor, &one, NULL, output) == GLESAM_OK);
  CHECK(memcmp(output->masks, buffer, sizeof buffer) == 0);
  CHECK(output->rle == NULL && output->packed == NULL && output->logits == NULL);
  /* Nothing is written beyond an older caller's struct. */
  memset(&newer, 1, sizeof newer);
  output->struct_size = offsetof(glesam_output, logits);
  CHECK(glesam_predict_as(predictor, &one, &request, output) == GLESAM_OK);
  CHECK(output->low_res[0] == first && newer.later != 0 && *(unsigned char*)&output->logits == 1);
  output->struct_size = 1;
  CHECK(glesam_predict_as(predictor, &one, &request, output) == GLESAM_INVALID_INPUT);
  CHECK(strstr(glesam_message(predictor), "output: struct_size is 1") != NULL);

  CHECK(glesam_get_features(predictor, NULL) == GLESAM_INVALID_INPUT);
  CHECK(glesam_get_features(predictor, &features) == GLESAM_OK);
  image[0] = image[1] = image[2] = 255;
  CHECK(glesam_set_image(predictor, image, SIDE, SIDE, 0) == GLESAM_OK);
  CHECK(glesam_predict(predictor, &one, 0, &result) == GLESAM_OK && result.low_res[0] != first);
  CHECK(glesam_set_features(predictor, NULL) == GLESAM_INVALID_INPUT);
  CHECK(glesam_set_features(predictor, features) == GLESAM_OK);
  CHECK(glesam_predict(predictor, &one, 0, &result) == GLESAM_OK && result.low_res[0] == first);
  CHECK(glesam_open(bundle, NULL, &other, NULL, 0) == GLESAM_OK);
  CHECK(glesam_set_features(other, features) == GLESAM_INVALID_INPUT);

  /* Several images at a time; the one that is set stays. */
  memset(&frame, 0, sizeof frame);
  frame.struct_size = sizeof frame;
  frame.planes[0] = image;
  frame.width = frame.height = SIDE;
  frames[0] = frames[1] = &frame;
  CHECK(glesam_encode(predictor, frames, 2, both) == GLESAM_OK);
  CHECK(glesam_predict(predictor, &one, 0, &result) == GLESAM_OK && result.low_res[0] == first);
  CHECK(glesam_set_features(predictor, both[1]) == GLESAM_OK);
  CHECK(glesam_predict(predictor, &one, 0, &result) == GLESAM_OK && result.low_res[0] != first);
  glesam_free_features(both[0]);
  glesam_free_features(both[1]);
  both[0] = both[1] = untouched;
  frames[1] = NULL;
  CHECK(glesam_encode(predictor, frames, 2, both) == GLESAM_INVALID_INPUT && both[0] == untouched);
  CHECK(glesam_encode(predictor, frames, 0, both) == GLESAM_INVALID_INPUT);
  CHECK(glesam_encode(predictor, NULL, 1, both) == GLESAM_INVALID_INPUT);
  frame.memory = GLESAM_MEMORY_CUDA;
  CHECK(glesam_set_frame(predictor, &frame) == GLESAM_INVALID_INPUT);
  CHECK(strstr(glesam_message(predictor), "a frame in CUDA memory, but openvino") != NULL);
  glesam_close(other);
  glesam_close(predictor);
  glesam_free_features(features);
  glesam_free_features(NULL);
  return 0;
}

/* Sessions of a context share its options, and each knows what was decided for its own image. */
static int decisions(const char* bundle) {
  glesam_context* context = NULL;
  glesam_predictor *first = NULL, *second = NULL;
  glesam_features* features = NULL;
  glesam_options options;
  glesam_decision decision;
  char message[300];
  memset(&options, 0, sizeof options);
  memset(&decision, 0, sizeof decision);
  CHECK(glesam_context_open(bundle, &options, &context, message, sizeof message) ==
        GLESAM_INVALID_INPUT);
  CHECK(strstr(message, "options: struct_size is 0") != NULL);
  options.struct_size = sizeof options;
  options.gate = GLESAM_GATE_IGNORED + 1;
  CHECK(glesam_context_open(bundle, &options, &context, message, sizeof message) ==
        GLESAM_INVALID_INPUT);
  CHECK(strstr(message, "gate 3: is not a value") != NULL);
  options.gate = GLESAM_GATE_REQUIRED;
  CHECK(glesam_context_open(bundle, &options, &context, message, sizeof message) ==
        GLESAM_INVALID_INPUT);
  CHECK(strstr(message, "has no gate to enhance by") != NULL && context == NULL);
  /* An older caller's options end before the gate, which is then not read. */
  options.struct_size = offsetof(glesam_options, gate);
  CHECK(glesam_context_open(bundle, &options, &context, message, sizeof message) == GLESAM_OK);
  CHECK(glesam_session_create(context, &first, message, sizeof message) == GLESAM_OK);
  glesam_context_close(context);
  CHECK(glesam_share(first, &second, message, sizeof message) == GLESAM_OK);

  CHECK(glesam_set_image(first, image, SIDE, SIDE, 0) == GLESAM_OK);
  CHECK(glesam_get_decision(first, &decision) == GLESAM_INVALID_INPUT);
  CHECK(strstr(glesam_message(first), "decision: struct_size is 0") != NULL);
  CHECK(glesam_get_decision(first, NULL) == GLESAM_INVALID_INPUT);
  decision.struct_size = sizeof decision;
  CHECK(glesam_get_decision(second, &decision) == GLESAM_INVALID_INPUT);
  CHECK(strstr(glesam_message(second), "no image is set") != NULL && decision.enhanced == 0);
  CHECK(glesam_get_features(first, &features) == GLESAM_OK);
  CHECK(glesam_set_features(second, features) == GLESAM_OK);
  glesam_free_features(features);
  glesam_close(first);
  CHECK(glesam_get_decision(second, &decision) == GLESAM_OK);
  CHECK(decision.enhanced == 1 && decision.estimated == 0 && decision.estimate == 0);
  glesam_close(second);
  return 0;
}

/* Predicts until the other thread has seen that it is busy. */
static volatile int busy_seen = 0;
static void* predicts(void* predictor) {
  glesam_result result;
  static int code;
  int i;
  for (i = 0; i < 200 && !busy_seen; ++i) {
    do {
      code = glesam_predict(predictor, &many, 0, &result);
    } while (code == GLESAM_BUSY);
    if (code != GLESAM_OK) break;
  }
  return &code;
}

static int one_thread_at_a_time(const char* bundle) {
  glesam_predictor* predictor = NULL;
  glesam_result result;
  pthread_t thread;
  void* code = NULL;
  long tries = 0;
  CHECK(glesam_open(bundle, NULL, &predictor, NULL, 0) == GLESAM_OK);
  CHECK(glesam_set_image(predictor, image, SIDE, SIDE, 0) == GLESAM_OK);
  CHECK(pthread_create(&thread, NULL, predicts, predictor) == 0);
  while (glesam_set_image(predictor, NULL, SIDE, SIDE, 0) != GLESAM_BUSY) {
    CHECK(++tries < 100000000);
  }
  CHECK(strstr(glesam_message(predictor), "in use by another thread") != NULL);
  busy_seen = 1;
  CHECK(pthread_join(thread, &code) == 0);
  CHECK(*(int*)code == GLESAM_OK);
  CHECK(glesam_predict(predictor, &many, 0, &result) == GLESAM_OK);
  CHECK(strcmp(glesam_message(predictor), "") == 0);
  glesam_close(predictor);
  return 0;
}

int main(int argc, char** argv) {
  glesam_predictor* predictor = NULL;
  glesam_params params = glesam_default_params();
  char message[200] = "", cut[10] = "";
  CHECK(argc == 2);
  CHECK(strlen(glesam_version()) > 0);

  CHECK(glesam_open(NULL, &params, &predictor, message, sizeof message) == GLESAM_INVALID_INPUT);
  CHECK(strstr(message, "bundle: a null pointer") != NULL);
  CHECK(glesam_open("nowhere", &params, &predictor, cut, sizeof cut) == GLESAM_BAD_BUNDLE);
  CHECK(strcmp(cut, "nowhere: ") == 0);
  CHECK(glesam_open("nowhere", NULL, &predictor, NULL, 0) == GLESAM_BAD_BUNDLE);
  CHECK(glesam_open(argv[1], &params, NULL, NULL, 0) == GLESAM_INVALID_INPUT);
  CHECK(predictor == NULL);
  CHECK(glesam_set_image(NULL, NULL, 1, 1, 0) == GLESAM_INVALID_INPUT);
  CHECK(strlen(glesam_message(NULL)) > 0);
  glesam_close(NULL);

  CHECK(glesam_open(argv[1], &params, &predictor, message, sizeof message) == GLESAM_OK);
  CHECK(strcmp(message, "") == 0);
  {
    const int width = 90, height = 60;
    uint8_t* rgb = malloc((size_t)(width * height * 3));
    double boxes[8] = {10, 10, 50, 40, 20, 5, 80, 55};
    glesam_prompts prompts;
    glesam_result result, kept;
    size_t i;
    CHECK(rgb != NULL);
    for (i = 0; i < (size_t)(width * height * 3); ++i) rgb[i] = (uint8_t)(i * 31 % 251);
    memset(&prompts, 0, sizeof prompts);
    prompts.count = 2;
    prompts.boxes = boxes;
    CHECK(glesam_predict(predictor, &prompts, 0, &result) == GLESAM_INVALID_INPUT);
    CHECK(strstr(glesam_message(predictor), "no image is set") != NULL);
    CHECK(glesam_set_image(predictor, NULL, width, height, 0) == GLESAM_INVALID_INPUT);
    CHECK(glesam_set_image(predictor, rgb, width, height, 0) == GLESAM_OK);
    CHECK(strcmp(glesam_message(predictor), "") == 0);
    CHECK(glesam_predict(predictor, NULL, 0, &result) == GLESAM_INVALID_INPUT);
    CHECK(glesam_predict(predictor, &prompts, 1, &result) == GLESAM_OK);
    CHECK(result.count == 2 && result.masks_per_prompt == 3);
    CHECK(result.width == 90 && result.height == 60);
    for (i = 0; i < 2 * 3 * 90 * 60; ++i) CHECK(result.masks[i] <= 1);
    for (i = 0; i < 6; ++i) CHECK(result.scores[i] == result.scores[i]);
    /* A failed call does not change the result or the arrays that it points to. */
    kept = result;
    prompts.count = 0;
    CHECK(glesam_predict(predictor, &prompts, 1, &result) == GLESAM_INVALID_INPUT);
    CHECK(memcmp(&kept, &result, sizeof kept) == 0 && kept.masks[0] <= 1);
    free(rgb);
  }
  glesam_close(predictor);

  {
    glesam_params zeros;
    float by_default = 0, by_zeros = 1, plain = 0;
    size_t i;
    memset(&zeros, 0, sizeof zeros);
    for (i = 0; i < sizeof image; ++i) image[i] = (uint8_t)(i * 31 % 251);
    for (i = 0; i < 48; ++i) {
      boxes_of_48[4 * i] = boxes_of_48[4 * i + 1] = (double)(i % 20);
      boxes_of_48[4 * i + 2] = boxes_of_48[4 * i + 3] = (double)(i % 20 + 30);
    }
    memset(&many, 0, sizeof many);
    many.count = 48;
    many.boxes = boxes_of_48;
    /* A struct of zeros has the default options; the enhancer runs. */
    CHECK(logit(argv[1], NULL, &by_default) == GLESAM_OK);
    CHECK(logit(argv[1], &zeros, &by_zeros) == GLESAM_OK);
    CHECK(by_default == by_zeros);
    zeros.skip_enhancer = 1;
    CHECK(logit(argv[1], &zeros, &plain) == GLESAM_OK);
    CHECK(plain != by_default);
    zeros.limits.side = SIDE - 1;
    CHECK(logit(argv[1], &zeros, &plain) == GLESAM_INVALID_INPUT);
    CHECK(one_thread_at_a_time(argv[1]) == 0);
    CHECK(frames(argv[1]) == 0);
    CHECK(decisions(argv[1]) == 0);
    CHECK(forms(argv[1]) == 0);
  }
  printf("passed\n");
  return 0;
}
