/* The part of the C API for ending calls early and for calls that do not wait. glesam_c.h includes it. */
#ifndef GLESAM_C_CALLS_H
#define GLESAM_C_CALLS_H

#include "glesam_c.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Receives the outcome of glesam_segment_async, in a thread of the predictor.
 *
 * user: as passed to glesam_segment_async.
 * code: a glesam_code. message: "" or the error, valid during the call.
 * output: null if the call failed. Its arrays belong to the predictor; see Ownership in glesam_c.h.
 */
typedef void (*glesam_done)(void* user, int code, const char* message, const glesam_output* output);

/* Releases the image that is set, with its features. Does nothing if none is set. */
GLESAM_API int glesam_reset_image(glesam_predictor* predictor);

/* Ends the call that runs, in whatever thread: it returns GLESAM_CANCELLED soon and changes nothing. Does
 * nothing if no call runs. OpenVINO and ONNX Runtime interrupt the run of a graph; TensorRT finishes it
 * first. */
GLESAM_API void glesam_cancel(glesam_predictor* predictor);

/* Limits the duration of each later call. A call that takes longer returns GLESAM_TIMEOUT and changes
 * nothing.
 *
 * seconds: 0 means no limit, which is the default.
 */
GLESAM_API int glesam_set_timeout(glesam_predictor* predictor, double seconds);

/* Sets a frame and does what glesam_predict_as does, in a thread of the predictor, and returns at once.
 * Until the call is done, other calls return GLESAM_BUSY.
 *
 * frame: null: the image that is set. Its pixels and the request's mask_buffer must stay valid until
 *     `done` is called. The structs and the prompts' arrays are copied.
 * done: called once if this function returns GLESAM_OK, and not otherwise. It may start the next call or
 *     close the predictor. glesam_close cancels the call, and waits for `done` unless `done` calls it.
 */
GLESAM_API int glesam_segment_async(glesam_predictor* predictor, const glesam_frame* frame,
                                    const glesam_prompts* prompts, const glesam_request* request,
                                    glesam_done done, void* user);

#ifdef __cplusplus
}
#endif

#endif
