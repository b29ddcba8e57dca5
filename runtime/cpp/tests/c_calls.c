/* Tests contexts, information, ending calls early, asynchronous calls, everything-mode and following of
 * the C API.
 * Usage: c_calls BUNDLE */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "glesam_c.h"
#include "glesam_follow_c.h"

#define CHECK(condition)                                  \
  if (!(condition)) {                                     \
    printf("FAILED line %d: %s\n", __LINE__, #condition); \
    return 1;                                             \
  }

#define SIDE 64

static uint8_t image[SIDE * SIDE * 3];
static glesam_frame frame;
static glesam_prompts prompts;
static double box[4] = {5, 5, 40, 40};
static char message[300];

static int logged[4];
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static void log_to(void* user, int level, const char* text) {
  pthread_mutex_lock(&log_lock);
  if (level >= 0 && level < 4 && text != NULL && user == &logged) ++logged[level];
  pthread_mutex_unlock(&log_lock);
}

static int contexts(const char* bundle) {
  glesam_options options;
  glesam_context* context = NULL;
  glesam_predictor *first = NULL, *second = NULL, *third = NULL;
  glesam_result one, two;
  glesam_info info;
  glesam_timings timings;
  memset(&options, 0, sizeof options);
  CHECK(glesam_context_open(bundle, &options, &context, message, sizeof message) ==
        GLESAM_INVALID_INPUT);
  CHECK(strstr(message, "options: struct_size is 0") != NULL);
  options.struct_size = sizeof options;
  options.log = log_to;
  options.log_user = &logged;
  CHECK(glesam_context_open("nowhere", &options, &context, NULL, 0) == GLESAM_BAD_BUNDLE);
  CHECK(context == NULL && logged[GLESAM_LOG_ERROR] == 1);
  CHECK(glesam_context_open(bundle, &options, &context, message, sizeof message) == GLESAM_OK);
  CHECK(logged[GLESAM_LOG_INFO] == 1);
  CHECK(glesam_session_create(context, NULL, NULL, 0) == GLESAM_INVALID_INPUT);
  CHECK(glesam_session_create(NULL, &first, NULL, 0) == GLESAM_INVALID_INPUT && first == NULL);
  CHECK(glesam_session_create(context, &first, message, sizeof message) == GLESAM_OK);
  CHECK(glesam_session_create(context, &second, NULL, 0) == GLESAM_OK);
  glesam_context_close(context);
  CHECK(glesam_share(first, &third, NULL, 0) == GLESAM_OK);
  glesam_close(third);
  CHECK(glesam_set_frame(first, &frame) == GLESAM_OK);
  CHECK(glesam_predict(second, &prompts, 0, &two) == GLESAM_INVALID_INPUT);
  CHECK(logged[GLESAM_LOG_ERROR] == 2);
  CHECK(glesam_set_frame(second, &frame) == GLESAM_OK);
  CHECK(glesam_predict(first, &prompts, 0, &one) == GLESAM_OK);
  CHECK(glesam_predict(second, &prompts, 0, &two) == GLESAM_OK);
  CHECK(memcmp(one.masks, two.masks, SIDE * SIDE) == 0);
  memset(&info, 0, sizeof info);
  CHECK(glesam_get_info(first, &info) == GLESAM_INVALID_INPUT);
  info.struct_size = sizeof info;
  CHECK(glesam_get_info(first, &info) == GLESAM_OK);
  CHECK(strcmp(info.family, "sam") == 0 && info.trained == 1 && strlen(info.sha256) == 64);
  CHECK(glesam_backend(0) != NULL && strcmp(info.engine, glesam_backend(0)) == 0);
  CHECK(glesam_backend(9) == NULL && glesam_abi_version() == GLESAM_ABI_VERSION);
  timings.struct_size = sizeof timings;
  CHECK(glesam_get_timings(first, &timings) == GLESAM_OK);
  CHECK(timings.load > 0 && timings.encoder > 0 && timings.decoder > 0);
  CHECK(glesam_reset_image(first) == GLESAM_OK);
  CHECK(glesam_predict(first, &prompts, 0, &one) == GLESAM_INVALID_INPUT);
  glesam_close(first);
  glesam_close(second);
  return 0;
}

static int selftests(const char* bundle) {
  glesam_selftest* selftest = NULL;
  glesam_selftest_summary summary;
  glesam_output_error error;
  CHECK(glesam_selftest_run(bundle, NULL, &selftest, message, sizeof message) == GLESAM_OK);
  summary.struct_size = sizeof summary;
  CHECK(glesam_selftest_summarize(selftest, &summary) == GLESAM_OK);
  CHECK(summary.outputs == 4 && summary.mask_iou_worst > 0.9);
  CHECK((summary.failures == 0) == (glesam_selftest_failure(selftest, 0) == NULL));
  error.struct_size = sizeof error;
  CHECK(glesam_selftest_output(selftest, 0, &error) == GLESAM_OK);
  CHECK(strcmp(error.stage, "encoder") == 0 && error.relative_l2 < 1);
  CHECK(glesam_selftest_output(selftest, 4, &error) == GLESAM_INVALID_INPUT);
  glesam_selftest_free(selftest);
  glesam_selftest_free(NULL);
  return 0;
}

/* What `done` saw. */
struct seen {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  glesam_predictor* predictor;
  int calls, code, again;
  float first;
  size_t corners;
};

static void done(void* user, int code, const char* text, const glesam_output* output) {
  struct seen* seen = user;
  pthread_mutex_lock(&seen->lock);
  if (seen->again > 0) { /* start the next call here */
    --seen->again;
    if (glesam_segment_async(seen->predictor, &frame, &prompts, NULL, done, seen) != GLESAM_OK) {
      seen->again = -100;
    }
  }
  seen->code = code;
  if (output != NULL) {
    seen->first = output->low_res[0];
    seen->corners = output->ring_sizes != NULL ? output->ring_sizes[0] : 0;
  }
  if ((text[0] == '\0') != (code == GLESAM_OK)) seen->again = -100;
  ++seen->calls;
  pthread_cond_signal(&seen->changed);
  pthread_mutex_unlock(&seen->lock);
}

static void closes(void* user, int code, const char* text, const glesam_output* output) {
  struct seen* seen = user;
  (void)text, (void)output;
  glesam_close(seen->predictor);
  pthread_mutex_lock(&seen->lock);
  seen->code = code;
  ++seen->calls;
  pthread_cond_signal(&seen->changed);
  pthread_mutex_unlock(&seen->lock);
}

static void wait_for(struct seen* seen, int calls) {
  pthread_mutex_lock(&seen->lock);
  while (seen->calls < calls) pthread_cond_wait(&seen->changed, &seen->lock);
  pthread_mutex_unlock(&seen->lock);
}

static int asynchronous(const char* bundle) {
  struct seen seen;
  glesam_predictor* predictor = NULL;
  glesam_request request;
  glesam_result result;
  double own_box[4];
  glesam_prompts own = prompts;
  glesam_frame other;
  memset(&seen, 0, sizeof seen);
  pthread_mutex_init(&seen.lock, NULL);
  pthread_cond_init(&seen.changed, NULL);
  memset(&request, 0, sizeof request);
  request.struct_size = sizeof request;
  request.polygons = 1;
  CHECK(glesam_open(bundle, NULL, &predictor, NULL, 0) == GLESAM_OK);
  CHECK(glesam_segment_async(predictor, &frame, &prompts, NULL, NULL, NULL) == GLESAM_INVALID_INPUT);
  CHECK(glesam_segment_async(predictor, NULL, &prompts, NULL, done, &seen) == GLESAM_OK);
  wait_for(&seen, 1);
  CHECK(seen.code == GLESAM_INVALID_INPUT); /* no image is set */
  CHECK(glesam_set_frame(predictor, &frame) == GLESAM_OK);
  CHECK(glesam_predict(predictor, &prompts, 0, &result) == GLESAM_OK);
  memcpy(own_box, box, sizeof box);
  own.boxes = own_box;
  CHECK(glesam_segment_async(predictor, &frame, &own, &request, done, &seen) == GLESAM_OK);
  memset(own_box, 0, sizeof own_box); /* the prompts were copied */
  CHECK(glesam_reset_image(predictor) == GLESAM_BUSY);
  wait_for(&seen, 2);
  CHECK(seen.code == GLESAM_OK && seen.corners >= 4);
  CHECK(glesam_predict(predictor, &prompts, 0, &result) == GLESAM_OK);
  CHECK(seen.first == result.low_res[0]);
  /* A call whose prompts are wrong keeps the image, although it has encoded another. */
  other = frame;
  other.planes[0] = image + 3;
  other.width = SIDE - 1;
  other.strides[0] = 3 * SIDE;
  own.boxes = own_box; /* zeros: an empty box */
  CHECK(glesam_segment_async(predictor, &other, &own, NULL, done, &seen) == GLESAM_OK);
  wait_for(&seen, 3);
  CHECK(seen.code == GLESAM_INVALID_INPUT);
  CHECK(glesam_predict(predictor, &prompts, 0, &result) == GLESAM_OK);
  CHECK(seen.first == result.low_res[0] && result.width == SIDE);
  /* A cancelled call is done too, and changes nothing. */
  CHECK(glesam_segment_async(predictor, &frame, &prompts, NULL, done, &seen) == GLESAM_OK);
  glesam_cancel(predictor);
  wait_for(&seen, 4);
  CHECK(seen.code == GLESAM_CANCELLED || seen.code == GLESAM_OK);
  /* One call after the other, started by `done`. */
  seen.predictor = predictor;
  seen.again = 3;
  CHECK(glesam_segment_async(predictor, &frame, &prompts, NULL, done, &seen) == GLESAM_OK);
  wait_for(&seen, 8);
  CHECK(seen.code == GLESAM_OK && seen.again == 0);
  CHECK(glesam_set_timeout(predictor, -1) == GLESAM_INVALID_INPUT);
  CHECK(glesam_set_timeout(predictor, 1e-9) == GLESAM_OK);
  CHECK(glesam_set_frame(predictor, &frame) == GLESAM_TIMEOUT);
  CHECK(strstr(glesam_message(predictor), "longer than its timeout") != NULL);
  CHECK(glesam_set_timeout(predictor, 0) == GLESAM_OK);
  glesam_cancel(NULL);
  CHECK(glesam_segment_async(predictor, &frame, &prompts, NULL, closes, &seen) == GLESAM_OK);
  wait_for(&seen, 9);
  CHECK(glesam_open(bundle, NULL, &predictor, NULL, 0) == GLESAM_OK);
  seen.again = 0;
  CHECK(glesam_segment_async(predictor, &frame, &prompts, NULL, done, &seen) == GLESAM_OK);
  glesam_close(predictor); /* cancels and waits for `done` */
  CHECK(seen.calls == 10);
  return 0;
}

static int everything(const char* bundle) {
  glesam_predictor* predictor = NULL;
  glesam_everything params;
  glesam_record record;
  size_t count = 77, i;
  memset(&params, 0, sizeof params);
  CHECK(glesam_default_everything(&params) == GLESAM_INVALID_INPUT);
  params.struct_size = sizeof params;
  CHECK(glesam_default_everything(&params) == GLESAM_OK && params.points_per_side == 32);
  CHECK(glesam_open(bundle, NULL, &predictor, NULL, 0) == GLESAM_OK);
  params.points_per_side = 0;
  CHECK(glesam_segment_everything(predictor, &frame, &params, &count) == GLESAM_INVALID_INPUT);
  CHECK(strstr(glesam_message(predictor), "points_per_side 0: a whole number of 1 or more") != NULL);
  CHECK(count == 77);
  params.points_per_side = 4;
  params.pred_iou_thresh = params.stability_score_thresh = 0;
  params.masks = 1;
  CHECK(glesam_segment_everything(predictor, &frame, &params, &count) == GLESAM_OK && count > 0);
  record.struct_size = sizeof record;
  for (i = 0; i < count; ++i) {
    int64_t area = 0;
    size_t pixel;
    CHECK(glesam_get_record(predictor, i, &record) == GLESAM_OK);
    for (pixel = 0; pixel < SIDE * SIDE; ++pixel) area += record.mask[pixel];
    CHECK(area == record.area && strlen(record.rle) > 0 && record.crop_box.width == SIDE);
  }
  CHECK(glesam_get_record(predictor, count, &record) == GLESAM_INVALID_INPUT);
  glesam_close(predictor);
  return 0;
}

/* A frame with an impossible size is refused before anything reads its pixels. */
static int following(const char* bundle) {
  glesam_predictor* predictor = NULL;
  glesam_follower* follower = NULL;
  glesam_frame huge = frame;
  CHECK(glesam_open(bundle, NULL, &predictor, NULL, 0) == GLESAM_OK);
  CHECK(glesam_follow_open(predictor, NULL, &follower) == GLESAM_OK);
  huge.format = GLESAM_FORMAT_GRAY;
  huge.width = huge.height = 0x7fffffff;
  CHECK(glesam_follow_start(follower, &huge, &prompts) == GLESAM_INVALID_INPUT);
  CHECK(strstr(glesam_follow_message(follower), "more than the limit") != NULL);
  CHECK(glesam_follow_start(follower, &frame, &prompts) == GLESAM_OK);
  CHECK(glesam_follow_next(follower, &huge) == GLESAM_INVALID_INPUT);
  CHECK(glesam_follow_next(follower, &frame) == GLESAM_OK && glesam_follow_count(follower) == 1);
  glesam_follow_close(follower);
  glesam_close(predictor);
  return 0;
}

int main(int argc, char** argv) {
  size_t i;
  CHECK(argc == 2);
  for (i = 0; i < sizeof image; ++i) image[i] = (uint8_t)(i * 31 % 251);
  frame.struct_size = sizeof frame;
  frame.format = GLESAM_FORMAT_RGB;
  frame.width = frame.height = SIDE;
  frame.planes[0] = image;
  prompts.count = 1;
  prompts.boxes = box;
  if (contexts(argv[1]) || selftests(argv[1]) || asynchronous(argv[1]) || everything(argv[1]) ||
      following(argv[1])) {
    return 1;
  }
  printf("passed\n");
  return 0;
}
