/* The part of the C API for everything-mode: masks of all objects in an image, from a grid of points.
 * glesam_c.h includes it, and glesam_everything.h says more about each field. */
#ifndef GLESAM_C_EVERYTHING_H
#define GLESAM_C_EVERYTHING_H

#include "glesam_c.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How densely to search and which masks to keep. Get the defaults from glesam_default_everything. See
 * glesam_frame about struct_size. */
typedef struct glesam_everything {
  size_t struct_size;  /* sizeof(glesam_everything) */
  int points_per_side; /* points along each side of the grid; default 32 */
  int points_per_batch;          /* maximum number of points per decoder call; default 64 */
  double pred_iou_thresh;        /* keep masks whose predicted IoU is greater; default -1: the bundle's */
  double stability_score_thresh; /* keep masks at least so stable; default -1: the bundle's */
  double stability_score_offset; /* in logits; default -1: the bundle's */
  double box_nms_thresh;         /* IoU of boxes above which a mask is a duplicate; default 0.7 */
  int crop_n_layers;             /* layer n searches 4^n overlapping crops; default 0 */
  double crop_nms_thresh;        /* as box_nms_thresh, of masks from different crops; default 0.7 */
  double crop_overlap_ratio; /* of the crops in layer 1, as a share of the shorter side; 512 / 1500 */
  int crop_n_points_downscale_factor; /* each layer has so many times fewer points; default 1 */
  int min_mask_region_area; /* fill holes and remove islands of fewer pixels; default 0: none */
  int masks;                /* 1: also give glesam_record.mask */
} glesam_everything;

/* A mask and its description. See glesam_frame about struct_size. */
typedef struct glesam_record {
  size_t struct_size;     /* sizeof(glesam_record), set by the caller */
  const char* rle;        /* "counts" of COCO's compressed RLE, whose "size" is [H, W] */
  const uint8_t* mask;    /* [H, W]: 1 inside the mask; null unless glesam_everything.masks */
  int64_t area;           /* pixels */
  glesam_box bbox;        /* as in segment_anything: width and height are last - first */
  double predicted_iou, stability_score;
  double point_x, point_y; /* the prompt, in pixels of the image */
  glesam_box crop_box;     /* the crop in which the mask was found */
} glesam_record;

/* Writes the default parameters to a struct whose struct_size is set. */
GLESAM_API int glesam_default_everything(glesam_everything* params);

/* Finds the masks of everything in a frame. The image that is set stays the same.
 *
 * params: null means the defaults.
 * count: receives the number of masks, highest predicted IoU first.
 */
GLESAM_API int glesam_segment_everything(glesam_predictor* predictor, const glesam_frame* frame,
                                         const glesam_everything* params, size_t* count);

/* Writes mask `index` of the last successful glesam_segment_everything. Its arrays belong to the predictor
 * and are valid until the next one succeeds, or glesam_close. */
GLESAM_API int glesam_get_record(glesam_predictor* predictor, size_t index, glesam_record* record);

#ifdef __cplusplus
}
#endif

#endif
