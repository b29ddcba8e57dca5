/* The part of the C API for contexts, which own the loaded model, and for what is known about it.
 * glesam_c.h includes it. */
#ifndef GLESAM_C_CONTEXT_H
#define GLESAM_C_CONTEXT_H

#include "glesam_c.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the promise in glesam_c.h. glesam_abi_version returns that of the library. */
#define GLESAM_ABI_VERSION 1

typedef enum glesam_log_level {
  GLESAM_LOG_DEBUG = 0,
  GLESAM_LOG_INFO = 1,
  GLESAM_LOG_WARNING = 2,
  GLESAM_LOG_ERROR = 3
} glesam_log_level;

/* All options for opening a context. See glesam_frame about struct_size. A struct of zeros but for
 * its size has the default options. */
typedef struct glesam_options {
  size_t struct_size; /* sizeof(glesam_options) */
  glesam_params params;
  int streams; /* OpenVINO only: number of runs that the engine does at the same time. They share the
                  CPU threads: more streams raise both throughput and latency. Sessions beyond it
                  wait for each other. 0: 1 */
  int gate;    /* a glesam_gate */
  /* Called with what happens: opened bundles and errors. `level` is a glesam_log_level. Any thread that
     uses the context may call it, several at the same time. Null: no log */
  void (*log)(void* user, int level, const char* message);
  void* log_user; /* passed to `log` */
} glesam_options;

/* The loaded bundle and the engine that runs it. See glesam_frame about struct_size. The strings belong to
 * the predictor. */
typedef struct glesam_info {
  size_t struct_size;     /* sizeof(glesam_info), set by the caller */
  const char* bundle;     /* the bundle's folder */
  const char* sha256;     /* hash of manifest.json, which contains the hash of every other file */
  const char* family;     /* "sam" or "sam2" */
  const char* preset;     /* such as "sam_vit_b" */
  int trained;            /* 0: random weights, whose masks mean nothing */
  size_t image_size;      /* S, the side of the encoder's square input in pixels */
  const char* engine;     /* such as "openvino" */
  const char* engine_version;
  const char* provider;   /* the engine's own name for what runs the graphs */
  const char* device;     /* the device that is really used */
} glesam_info;

/* The duration of the last run of each step, in seconds. `load` is that of opening the context. See
 * glesam_frame about struct_size. */
typedef struct glesam_timings {
  size_t struct_size; /* sizeof(glesam_timings), set by the caller */
  double load, preprocess, encoder, enhancer, decoder, masks;
  double gate; /* this and `enhancer` are 0 if the last image did not need the step */
} glesam_timings;

/* The result of a self-test. See glesam_frame about struct_size. */
typedef struct glesam_selftest_summary {
  size_t struct_size; /* sizeof(glesam_selftest_summary), set by the caller */
  size_t outputs;     /* compared outputs of stages; glesam_selftest_output returns each */
  size_t failures;    /* figures outside their limits; 0: passed. glesam_selftest_failure returns each */
  double mask_iou_mean, mask_iou_worst; /* IoU of the masks with the golden file's masks */
} glesam_selftest_summary;

/* The error of one output of a stage. See glesam_frame about struct_size. The strings belong to the
 * self-test. */
typedef struct glesam_output_error {
  size_t struct_size; /* sizeof(glesam_output_error), set by the caller */
  const char *stage, *output;
  double relative_l2; /* |computed - golden| / |golden| */
  double max_abs;     /* the largest absolute difference */
} glesam_output_error;

/* A self-test that has run. */
typedef struct glesam_selftest glesam_selftest;

/* Returns GLESAM_ABI_VERSION of this library. */
GLESAM_API int glesam_abi_version(void);

/* Returns the name of backend `index` of this library, from 0 on, or null if there are no more. The string
 * is static. "auto" uses the first that can read the bundle's graphs. */
GLESAM_API const char* glesam_backend(size_t index);

/* Checks every file of a bundle against its manifest, then loads the graphs into an engine.
 *
 * options: null means the defaults.
 * context: receives the context, which the caller frees with glesam_context_close.
 * bundle, message, message_size: as in glesam_open.
 */
GLESAM_API int glesam_context_open(const char* bundle, const glesam_options* options,
                                     glesam_context** context, char* message, size_t message_size);

/* Frees a context. Its sessions keep working, and the model stays loaded for them. Does nothing if
 * it is null. */
GLESAM_API void glesam_context_close(glesam_context* context);

/* Creates a session: a predictor on the context's model, without an image. It is cheap, since nothing
 * is loaded again. Several threads may call this with one context at the same time.
 *
 * session: receives the predictor, which the caller frees with glesam_close.
 * message, message_size: as in glesam_open.
 */
GLESAM_API int glesam_session_create(const glesam_context* context, glesam_predictor** session,
                                       char* message, size_t message_size);

/* Creates another session of a predictor's context, for another thread. A third thread may use the
 * predictor meanwhile. The arguments are those of glesam_session_create. */
GLESAM_API int glesam_share(const glesam_predictor* predictor, glesam_predictor** session,
                              char* message, size_t message_size);

/* Writes what is known about a predictor's model and engine. */
GLESAM_API int glesam_get_info(glesam_predictor* predictor, glesam_info* info);

/* Writes the duration of the predictor's last calls. */
GLESAM_API int glesam_get_timings(glesam_predictor* predictor, glesam_timings* timings);

/* Compares this machine with the reference: opens a bundle, runs the image and the prompts of its golden
 * file, and compares each stage's outputs and the masks. A figure outside its limit is a failure in the
 * summary; the code is still GLESAM_OK.
 *
 * selftest: receives the figures, which the caller frees with glesam_selftest_free.
 * bundle, options, message, message_size: as in glesam_context_open.
 */
GLESAM_API int glesam_selftest_run(const char* bundle, const glesam_options* options,
                                   glesam_selftest** selftest, char* message, size_t message_size);
GLESAM_API void glesam_selftest_free(glesam_selftest* selftest);

/* Write parts of the figures. They return GLESAM_INVALID_INPUT for a null pointer, a struct_size that is
 * not set, or an index that is too large. */
GLESAM_API int glesam_selftest_summarize(const glesam_selftest* selftest,
                                         glesam_selftest_summary* summary);
GLESAM_API int glesam_selftest_output(const glesam_selftest* selftest, size_t index,
                                      glesam_output_error* error);

/* Returns one line about a figure outside its limit, or null if `index` is too large. */
GLESAM_API const char* glesam_selftest_failure(const glesam_selftest* selftest, size_t index);

#ifdef __cplusplus
}
#endif

#endif
