/* The C API for following objects through a video. The last mask of each object and its box prompt the
 * next frame. glesam_follow.h is the C++ API, and says more.
 *
 * Usage, after glesam_open:
 *
 *     glesam_follower *follower;
 *     if (glesam_follow_open(predictor, NULL, &follower)) return 1;
 *     int code = glesam_follow_start(follower, &frame, &prompts);
 *     while (code == GLESAM_OK && read_frame(&frame)) {
 *       code = glesam_follow_next(follower, &frame);
 *       glesam_followed object = {sizeof object};
 *       if (code == GLESAM_OK) code = glesam_follow_get(follower, 0, &object);
 *     }
 *     if (code) puts(glesam_follow_message(follower));
 *     glesam_follow_close(follower);
 *
 * Errors, threads and ownership are those of glesam_c.h. */
#ifndef GLESAM_FOLLOW_C_H
#define GLESAM_FOLLOW_C_H

#include "glesam_c.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Follows one object or several through the frames of a video. */
typedef struct glesam_follower glesam_follower;

/* Whether the logits of the last mask are part of the prompt for the next frame. */
typedef enum glesam_mask_prompt {
  GLESAM_MASK_PROMPT_AUTO = 0, /* if the model was trained with them, which start finds out */
  GLESAM_MASK_PROMPT_ALWAYS = 1,
  GLESAM_MASK_PROMPT_NEVER = 2
} glesam_mask_prompt;

/* Set all bytes to zero, then struct_size to sizeof(glesam_follow_params), then the fields that you
 * need. */
typedef struct glesam_follow_params {
  size_t struct_size;
  double min_score;     /* an object with a lower predicted IoU is lost; 0: the default, 0.6 */
  double min_stability; /* an object with a lower stability is lost; 0: the default, 0.7 */
  int mask_prompt;      /* a glesam_mask_prompt */
} glesam_follow_params;

/* An object in one frame. */
typedef struct glesam_followed {
  size_t struct_size; /* sizeof(glesam_followed), set by the caller */
  int lost;           /* 1: it was not found. Mask and rle are then null, box and area zero */
  float score;        /* the IoU that the model predicts for the mask; of a lost object, for the mask
                         that was refused */
  double stability;   /* as in glesam_result */
  int64_t area;       /* pixels inside the mask */
  glesam_box box;     /* the smallest rectangle around the mask */
  const uint8_t* mask; /* [H, W]: 1 inside the mask, 0 outside */
  const char* rle;     /* "counts" of COCO's compressed RLE of the size [H, W] */
} glesam_followed;

/* Creates a follower that uses a predictor and its image.
 *
 * predictor: is closed after the follower, and used by nothing else meanwhile.
 * params: null means the defaults.
 * follower: receives the follower, which the caller frees with glesam_follow_close.
 */
GLESAM_API int glesam_follow_open(glesam_predictor* predictor, const glesam_follow_params* params,
                                    glesam_follower** follower);

/* Frees a follower. Does nothing if it is null. */
GLESAM_API void glesam_follow_close(glesam_follower* follower);

/* Finds the objects of prompts in a frame, and forgets those that were followed before. */
GLESAM_API int glesam_follow_start(glesam_follower* follower, const glesam_frame* frame,
                                     const glesam_prompts* prompts);

/* Finds the objects in the next frame, which must be of the same size. */
GLESAM_API int glesam_follow_next(glesam_follower* follower, const glesam_frame* frame);

/* Finds an object, counted from 0, in the last frame by a new prompt, for example because it is lost. */
GLESAM_API int glesam_follow_prompt(glesam_follower* follower, size_t number,
                                      const glesam_prompts* prompts);

/* Returns the number of objects. */
GLESAM_API size_t glesam_follow_count(const glesam_follower* follower);

/* Gets an object of the last frame, counted from 0.
 *
 * object: receives the object. Its pointers are valid until the follower's next glesam_follow_start,
 *     _next, _prompt or _close.
 */
GLESAM_API int glesam_follow_get(glesam_follower* follower, size_t number,
                                   glesam_followed* object);

/* Returns the error message of the follower's last call, or "" if it succeeded. */
GLESAM_API const char* glesam_follow_message(const glesam_follower* follower);

#ifdef __cplusplus
}
#endif

#endif
