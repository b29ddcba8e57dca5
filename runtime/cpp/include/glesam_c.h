/* GleSAM's C ABI: glesam.h for every language that calls C. No exception crosses it.
 *
 *     glesam_params params = glesam_default_params();
 *     glesam_predictor *predictor;
 *     char message[512];
 *     if (glesam_open("bundle", &params, &predictor, message, sizeof message)) return puts(message);
 *     glesam_set_image(predictor, rgb, width, height, 0);
 *     double point[2] = {120, 80}; float label[1] = {1};
 *     glesam_prompts prompts = {0};
 *     prompts.count = 1; prompts.points = point; prompts.labels = label;
 *     prompts.points_per_prompt = 1;
 *     glesam_result result;
 *     if (glesam_predict(predictor, &prompts, 0, &result)) puts(glesam_message(predictor));
 *     glesam_close(predictor);
 *
 * Every function that returns int returns a glesam_code. A predictor takes one call at a time; use
 * one a thread. A result's arrays belong to the predictor and hold until its next predict or close.
 */
#ifndef GLESAM_C_H
#define GLESAM_C_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define GLESAM_C_API
#else
#define GLESAM_C_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum glesam_code {
  GLESAM_OK = 0,
  GLESAM_INVALID_INPUT = 1,
  GLESAM_BAD_BUNDLE = 2,
  GLESAM_BACKEND = 3,
  GLESAM_OUT_OF_MEMORY = 4,
  GLESAM_INTERNAL = 5
} glesam_code;

typedef struct glesam_predictor glesam_predictor;

/* As glesam::Params; a null string is an empty one. */
typedef struct glesam_params {
  const char* backend;
  const char* device;
  const char* precision;
  const char* engine_library;
  int threads;
  int enhance;
} glesam_params;

/* As glesam::Prompts. */
typedef struct glesam_prompts {
  size_t count;
  const double* points;
  const float* labels;
  size_t points_per_prompt;
  const double* boxes;
  const float* mask_input;
} glesam_prompts;

/* As glesam::Prediction. */
typedef struct glesam_result {
  size_t count, masks_per_prompt, height, width, low_res_side;
  const uint8_t* masks;
  const float* scores;
  const double* stability;
  const float* low_res;
} glesam_result;

GLESAM_C_API const char* glesam_version(void);
GLESAM_C_API glesam_params glesam_default_params(void);

/* Opens a bundle. What is wrong is written to message, cut to its size; message may be null. */
GLESAM_C_API int glesam_open(const char* bundle, const glesam_params* params,
                             glesam_predictor** predictor, char* message, size_t message_size);
GLESAM_C_API void glesam_close(glesam_predictor* predictor);

/* rgb: 8-bit RGB, top row first; stride: bytes from a row to the next, 0 is 3 * width. */
GLESAM_C_API int glesam_set_image(glesam_predictor* predictor, const uint8_t* rgb, int width,
                                  int height, size_t stride);
GLESAM_C_API int glesam_predict(glesam_predictor* predictor, const glesam_prompts* prompts,
                                int multimask, glesam_result* result);

/* What went wrong in the predictor's last call; "" where nothing did. */
GLESAM_C_API const char* glesam_message(const glesam_predictor* predictor);

#ifdef __cplusplus
}
#endif

#endif
