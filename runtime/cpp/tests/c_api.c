/* Tests the C API from a C program. Usage: c_api BUNDLE */
#include "glesam_c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                            \
  if (!(condition)) {                                               \
    printf("FAILED line %d: %s\n", __LINE__, #condition);           \
    return 1;                                                       \
  }

int main(int argc, char **argv) {
  glesam_predictor *predictor = NULL;
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
    uint8_t *rgb = malloc((size_t)(width * height * 3));
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
  printf("passed\n");
  return 0;
}
