/* The C API of the GleSAM runtime, for every language that can call C. It opens a bundle and turns
 * an image and prompts into masks. glesam.h is the C++ API, with more functions.
 *
 * Usage:
 *
 *     glesam_params params = glesam_default_params();
 *     glesam_predictor *predictor;
 *     char message[512];
 *     if (glesam_open("bundle", &params, &predictor, message, sizeof message))
 *       return puts(message);
 *     glesam_set_image(predictor, rgb, width, height, 0);
 *     double point[2] = {120, 80}; float label[1] = {1};
 *     glesam_prompts prompts = {0};
 *     prompts.count = 1; prompts.points = point; prompts.labels = label;
 *     prompts.points_per_prompt = 1;
 *     glesam_result result;
 *     if (glesam_predict(predictor, &prompts, 0, &result)) puts(glesam_message(predictor));
 *     glesam_close(predictor);
 *
 * Errors. A function that can fail returns a glesam_code: GLESAM_OK, which is 0, or an error. The
 * message is one line of UTF-8 that says what is wrong, where, and what to do. A function that
 * fails does not change its output arguments. No C++ exception leaves the library.
 *
 * Threads. The library has no global state. A context owns the loaded model. A predictor is a session
 * of it: it owns one image and accepts one call at a time. Create one for each thread, with
 * glesam_session_create or glesam_share. A call during a call of another thread returns GLESAM_BUSY
 * and does nothing. Different predictors may run at the same time. glesam_open opens a context and
 * creates one session of it.
 *
 * Ownership. The library reads the pointers that it is given only during the call. glesam_close
 * frees a predictor. The arrays of a glesam_result belong to the predictor and are valid until its
 * next successful glesam_predict or glesam_predict_as, or its glesam_close. So are those of a
 * glesam_output.
 *
 * Versions. Programs that were compiled with an older version of these headers work with this library.
 * A struct that begins with struct_size may get more fields in later versions, always at its end. All
 * other structs and all functions stay as they are. GLESAM_ABI_VERSION counts the changes that break
 * this promise: there are none since version 1.
 *
 * This header includes glesam_c_context.h (contexts, sessions, all options, information, self-test),
 * glesam_c_calls.h (cancelling, time limits, asynchronous calls) and glesam_c_everything.h.
 */
#ifndef GLESAM_C_H
#define GLESAM_C_H

#include <stddef.h>
#include <stdint.h>

#include "glesam_export.h"
#include "glesam_version.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum glesam_code {
  GLESAM_OK = 0,
  GLESAM_INVALID_INPUT = 1, /* an image, a prompt or an argument cannot be used */
  GLESAM_BAD_BUNDLE = 2,    /* the folder is incomplete, altered, too new, or not a bundle */
  GLESAM_BACKEND = 3,       /* the engine is missing, cannot run here, or cannot load a graph */
  GLESAM_OUT_OF_MEMORY = 4, /* use a smaller image or fewer prompts per call */
  GLESAM_INTERNAL = 5,      /* a bug in this library */
  GLESAM_BUSY = 6,          /* another thread is using this predictor */
  GLESAM_CANCELLED = 7,     /* glesam_cancel ended the call */
  GLESAM_TIMEOUT = 8        /* the call took longer than glesam_set_timeout allows */
} glesam_code;

/* A loaded bundle: the weights, which its sessions share. */
typedef struct glesam_context glesam_context;

/* A session: the image that is set, on a model that it may share with other sessions. */
typedef struct glesam_predictor glesam_predictor;

/* The largest inputs that are accepted, so that a mistaken or hostile one ends with a message
 * instead of using all memory. Raise one if your inputs exceed it and there is memory for them.
 * 0 means the default. */
typedef struct glesam_limits {
  size_t side;       /* pixels per side of an image; default 16777216 */
  size_t megapixels; /* of an image; one has 1024 x 1024 pixels; default 512 */
  size_t points;  /* per prompt; the decoder's memory grows with the square of them; default 4096 */
  size_t prompts; /* per call; default 10000 */
  size_t json_mib;   /* MiB of manifest.json, and of the header of golden.safetensors; default 32 */
  size_t golden_mib; /* MiB of golden.safetensors; default 512 */
} glesam_limits;

/* How the bytes of a frame are arranged, 8 bits per sample. glesam.h says how each one becomes RGB. */
typedef enum glesam_format {
  GLESAM_FORMAT_RGB = 0,
  GLESAM_FORMAT_BGR = 1,
  GLESAM_FORMAT_RGBA = 2, /* the fourth byte of each pixel is ignored */
  GLESAM_FORMAT_BGRA = 3, /* the fourth byte of each pixel is ignored */
  GLESAM_FORMAT_GRAY = 4,
  GLESAM_FORMAT_NV12 = 5, /* two planes: Y, and U and V in turns, one for 2 x 2 pixels */
  GLESAM_FORMAT_I420 = 6  /* three planes: Y, U, V; one U and V for 2 x 2 pixels */
} glesam_format;

/* The coefficients and the range of YUV formats. */
typedef enum glesam_yuv_matrix {
  GLESAM_YUV_BT601 = 0,
  GLESAM_YUV_BT709 = 1,
  GLESAM_YUV_BT2020 = 2
} glesam_yuv_matrix;
typedef enum glesam_yuv_range {
  GLESAM_YUV_LIMITED = 0, /* Y from 16 to 235, U and V from 16 to 240 */
  GLESAM_YUV_FULL = 1     /* all from 0 to 255, as in JPEG files */
} glesam_yuv_range;

/* Where the bytes of a frame are. See Frame::memory in glesam.h. */
typedef enum glesam_memory {
  GLESAM_MEMORY_HOST = 0,
  GLESAM_MEMORY_CUDA = 1 /* on the CUDA device that runs the graphs; rows are in order (pitch linear) */
} glesam_memory;

/* A frame of a camera or a video decoder.
 *
 * About struct_size: set all bytes of the struct to zero, then struct_size to its sizeof, then the fields that you need. */
typedef struct glesam_frame {
  size_t struct_size;       /* sizeof(glesam_frame) */
  int format;               /* a glesam_format */
  int width, height;        /* pixels; may be odd in all formats */
  const uint8_t* planes[3]; /* the top row of each plane */
  ptrdiff_t strides[3]; /* bytes from a row of a plane to the next lower one: at least a row, and
                               at most 2^31 - 1. Negative: the rows are stored bottom first. 0: the
                               bytes of a row */
  int region_x, region_y, region_width, region_height; /* the part that becomes the image, to which
                               points, boxes and masks are relative; all zeros: the whole frame */
  int yuv_matrix;                                      /* a glesam_yuv_matrix */
  int yuv_range;                                       /* a glesam_yuv_range */
  int memory;   /* a glesam_memory */
  void* stream; /* of CUDA memory: the cudaStream_t on which the frame is written; null: the legacy
                   default stream. Reading waits for it, and has ended when the call returns */
} glesam_frame;

/* Which images are enhanced, unless skip_enhancer is 1. See Gate in glesam.h. */
typedef enum glesam_gate {
  GLESAM_GATE_IF_PRESENT = 0, /* those that the bundle's gate chooses; every image without one */
  GLESAM_GATE_REQUIRED = 1,   /* those that the gate chooses; a bundle without one is an error */
  GLESAM_GATE_IGNORED = 2     /* every image */
} glesam_gate;

/* Options for opening a bundle. A null string is the same as an empty one. A struct of zeros has
 * the default options. */
typedef struct glesam_params {
  const char* backend;        /* "auto" (default), "openvino", "onnxruntime" or "tensorrt" */
  const char* device;         /* "cpu", "cuda", "cuda:1"; OpenVINO: "cpu", "gpu", "gpu:1", "npu";
                                 empty: the backend's default */
  const char* precision;      /* OpenVINO only: "bf16" or "fp16" inside the engine;
                                 empty: the precision of the graphs */
  const char* engine_library; /* path of libonnxruntime or libnvinfer;
                                 empty: the dynamic loader searches for it */
  int threads;                /* engine threads, at most 8 per core; 0: the engine's default */
  int skip_enhancer;          /* 1: skip the enhancer, which is plain SAM; 0 (default): run it */
  size_t max_prompt_batch;    /* maximum number of prompts per run of the decoder; 0: 8 on a CPU, 64
                                 on other devices, and less if a compiled decoder takes less */
  glesam_limits limits;
} glesam_params;

/* What was decided for the image that is set. See glesam_frame about struct_size. */
typedef struct glesam_decision {
  size_t struct_size; /* sizeof(glesam_decision) */
  int enhanced;       /* 1: the enhancer ran */
  int estimated;      /* 1: the bundle's gate was asked */
  double estimate;    /* what it estimated that the enhancer gains */
} glesam_decision;

/* B prompts for one image. Each prompt describes one object, by N points, by one box, by a mask, or
 * by several of these. All prompts of a call have the same parts and the same N. Coordinates are
 * (x, y) in pixels of the image. (0, 0) is the centre of the top left pixel. Arrays are row-major.
 */
typedef struct glesam_prompts {
  size_t count;             /* B, at least 1 */
  const double* points;     /* [B, N, 2]: x, y, inside the image; null: no points */
  const float* labels;      /* [B, N]: 1 object, 0 background; required with points */
  size_t points_per_prompt; /* N; 0 without points */
  const double* boxes;      /* [B, 4]: x0, y0, x1, y1; null: no boxes. A box must overlap the image
                               and may extend beyond each side of it by at most the image's width
                               or height */
  const float* mask_input;  /* [B, S/4, S/4]: logits, one mask of glesam_result.low_res from an
                               earlier call for each prompt; null: no masks */
} glesam_prompts;

/* The result of a prediction. Arrays are row-major. C is 3 with multimask and 1 without. */
typedef struct glesam_result {
  size_t count, masks_per_prompt, height, width, low_res_side; /* B, C, H, W, S/4 */
  const uint8_t* masks;    /* [B, C, H, W]: 1 inside the mask, 0 outside */
  const float* scores;     /* [B, C]: the IoU that the model predicts for each mask */
  const double* stability; /* [B, C]: the mask's area at a raised threshold divided by its area at
                              a lowered one, 0 if that is empty */
  const float* low_res;    /* [B, C, S/4, S/4]: logits; copy one mask of them per prompt and pass it
                              as mask_input to refine it */
} glesam_result;

/* What glesam_predict_as is to compute. See glesam_frame about struct_size. A struct of zeros but for
 * its size asks for one mask per prompt. */
typedef struct glesam_request {
  size_t struct_size;      /* sizeof(glesam_request) */
  int multimask;           /* 1: three candidate masks per prompt; 0: one */
  int skip_masks;          /* 1: no masks of one byte per pixel */
  int boxes;               /* 1: stability, areas and boxes, which all kinds of masks have anyway */
  int packed;              /* 1: masks of 8 pixels per byte */
  int rle;                 /* 1: masks as COCO's run lengths */
  int logits;              /* 1: logits at the image's size */
  uint8_t* mask_buffer;    /* where to write the masks: B * C masks of H rows, one after the other;
                              null: memory of the predictor. Its content may have changed if the
                              call fails */
  size_t mask_buffer_size; /* bytes; at least up to the last mask's last pixel */
  size_t mask_stride;      /* bytes from one row to the next; 0 means W */
  int polygons;            /* 1: outlines of the masks */
} glesam_request;

/* A rectangle of pixels. */
typedef struct glesam_box {
  int x, y, width, height;
} glesam_box;

/* The result of glesam_predict_as. Arrays are row-major. Those that were not asked for are null. See
 * glesam_frame about struct_size: the library writes no more bytes than it says. */
typedef struct glesam_output {
  size_t struct_size; /* sizeof(glesam_output), set by the caller */
  size_t count, masks_per_prompt, height, width, low_res_side; /* B, C, H, W, S/4 */
  const uint8_t* masks;    /* [B, C, H, W]: 1 inside the mask, 0 outside; null with a mask_buffer */
  const float* scores;     /* [B, C]: the IoU that the model predicts for each mask */
  const double* stability; /* [B, C]: as in glesam_result */
  const float* low_res;    /* [B, C, S/4, S/4]: as in glesam_result */
  const float* logits;     /* [B, C, H, W] */
  const int64_t* areas;    /* [B, C]: pixels inside the mask */
  const glesam_box*
      boxes;              /* [B, C]: the smallest rectangle around the mask; zeros if it is empty */
  const uint8_t* packed;  /* [B, C, H, (W + 7) / 8]: the highest bit is the leftmost pixel */
  const char* const* rle; /* [B, C]: "counts" of COCO's compressed RLE of the size [H, W] */
  /* Outlines and holes along the edges of pixels. The even-odd rule fills them to exactly the mask. */
  const size_t* ring_counts;  /* [B, C]: rings of each mask */
  const size_t* ring_sizes;   /* corners of each ring, mask by mask */
  const int* polygon_corners; /* x, y of each corner, ring by ring; (0, 0) is the top left corner of
                                 the top left pixel */
} glesam_output;

/* The features of an image, which a predictor computed. */
typedef struct glesam_features glesam_features;

/* Returns the version of this library, such as "0.1.0". The string is static. */
GLESAM_API const char* glesam_version(void);

/* Returns the default options. */
GLESAM_API glesam_params glesam_default_params(void);

/* Checks every file of a bundle against its manifest, then loads the graphs into an engine.
 *
 * bundle: the bundle's folder.
 * params: the options; null means the defaults.
 * predictor: receives the predictor, which the caller frees with glesam_close.
 * message: receives the error message, cut to message_size bytes with the final zero, or "" on
 *     success; may be null.
 */
GLESAM_API int glesam_open(const char* bundle, const glesam_params* params,
                             glesam_predictor** predictor, char* message, size_t message_size);

/* Frees a predictor and everything that belongs to it. Does nothing if it is null. */
GLESAM_API void glesam_close(glesam_predictor* predictor);

/* Preprocesses an image and runs the encoder and the enhancer on it. All predictions use this image
 * until the next glesam_set_image. If the call fails, the previous image stays set.
 *
 * rgb: 8 bits per channel, channels interleaved, top row first.
 * width, height: pixels.
 * stride: bytes from one row to the next, at most 2^31 - 1; 0 means 3 * width. glesam_set_frame
 *     takes negative strides (bottom row first).
 */
GLESAM_API int glesam_set_image(glesam_predictor* predictor, const uint8_t* rgb, int width,
                                  int height, size_t stride);

/* Does the same with a frame of any format. */
GLESAM_API int glesam_set_frame(glesam_predictor* predictor, const glesam_frame* frame);

/* Runs the decoder on B prompts and computes their masks at the image's size.
 *
 * multimask: 0 returns one mask per prompt; any other value returns three candidate masks, for
 *     ambiguous prompts. Python's GleSamPredictor follows segment_anything and defaults to three;
 *     this library defaults to one on purpose, which is why the example passes 0.
 * result: receives pointers into the predictor; see Ownership above.
 */
GLESAM_API int glesam_predict(glesam_predictor* predictor, const glesam_prompts* prompts,
                                int multimask, glesam_result* result);

/* Does what glesam_predict does, and computes what `request` says.
 *
 * request: null means a request of zeros.
 * output: receives pointers into the predictor; see Ownership above.
 */
GLESAM_API int glesam_predict_as(glesam_predictor* predictor, const glesam_prompts* prompts,
                                   const glesam_request* request, glesam_output* output);

/* Fills `decision`, whose struct_size is set, for the image that is set. */
GLESAM_API int glesam_get_decision(glesam_predictor* predictor, glesam_decision* decision);

/* Gets the features of the image that is set, to set them again later without running the encoder.
 *
 * features: receives the features, which the caller frees with glesam_free_features. They may
 *     outlive the predictor.
 */
GLESAM_API int glesam_get_features(glesam_predictor* predictor, glesam_features** features);

/* Sets an image by its features, which must be from the same predictor or another session of its
 * context. Nothing is copied. */
GLESAM_API int glesam_set_features(glesam_predictor* predictor, const glesam_features* features);

/* Encodes and enhances several frames and gets the features of each one. The image that is set stays the
 * same. See Predictor::encode in glesam.h.
 *
 * frames: `count` pointers to frames, all in the same kind of memory.
 * features: `count` places, which receive the features. The caller frees each with
 *     glesam_free_features. If the call fails, none changes.
 */
GLESAM_API int glesam_encode(glesam_predictor* predictor, const glesam_frame* const* frames, size_t count,
                             glesam_features** features);

/* Frees features. Does nothing if they are null. */
GLESAM_API void glesam_free_features(glesam_features* features);

/* Returns the error message of the predictor's last call, or "" if it succeeded. The string is
 * valid until the predictor's next call or its glesam_close. After GLESAM_BUSY, it returns the
 * message for it in the thread that received GLESAM_BUSY. */
GLESAM_API const char* glesam_message(const glesam_predictor* predictor);

#ifdef __cplusplus
}
#endif

#include "glesam_c_calls.h"
#include "glesam_c_context.h"
#include "glesam_c_everything.h"

#endif
