#include "video.h"

namespace glesam_gst {
namespace {

constexpr const char* kRoiType = "glesam";

int matrix_of(const GstVideoInfo& info) {
  switch (info.colorimetry.matrix) {
    case GST_VIDEO_COLOR_MATRIX_BT709: return GLESAM_YUV_BT709;
    case GST_VIDEO_COLOR_MATRIX_BT2020: return GLESAM_YUV_BT2020;
    default: return GLESAM_YUV_BT601;  // of NV12, is_convertible accepts no other
  }
}

}  // namespace

bool is_convertible(const GstVideoInfo& info) {
  if (GST_VIDEO_INFO_FORMAT(&info) != GST_VIDEO_FORMAT_NV12) return true;
  switch (info.colorimetry.matrix) {
    case GST_VIDEO_COLOR_MATRIX_BT601:
    case GST_VIDEO_COLOR_MATRIX_BT709:
    case GST_VIDEO_COLOR_MATRIX_BT2020: return true;
    default: return false;
  }
}

glesam_frame frame_of(GstVideoFrame* frame) {
  glesam_frame own{};
  own.struct_size = sizeof own;
  switch (GST_VIDEO_FRAME_FORMAT(frame)) {
    case GST_VIDEO_FORMAT_BGR: own.format = GLESAM_FORMAT_BGR; break;
    case GST_VIDEO_FORMAT_NV12: own.format = GLESAM_FORMAT_NV12; break;
    default: own.format = GLESAM_FORMAT_RGB; break;  // the caps name no other
  }
  own.width = GST_VIDEO_FRAME_WIDTH(frame);
  own.height = GST_VIDEO_FRAME_HEIGHT(frame);
  for (guint i = 0; i < GST_VIDEO_FRAME_N_PLANES(frame); ++i) {
    own.planes[i] = static_cast<const std::uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(frame, i));
    own.strides[i] = GST_VIDEO_FRAME_PLANE_STRIDE(frame, i);
  }
  own.yuv_matrix = matrix_of(frame->info);
  own.yuv_range = frame->info.colorimetry.range == GST_VIDEO_COLOR_RANGE_0_255 ? GLESAM_YUV_FULL
                                                                               : GLESAM_YUV_LIMITED;
  return own;
}

void attach(GstBuffer* buffer, const GstVideoInfo& info, std::size_t number, const Object& object) {
  const glesam_box& box = object.box;
  GstVideoRegionOfInterestMeta* meta = gst_buffer_add_video_region_of_interest_meta(
      buffer, kRoiType, static_cast<guint>(box.x), static_cast<guint>(box.y),
      static_cast<guint>(box.width), static_cast<guint>(box.height));
  meta->id = static_cast<gint>(number);
  GstStructure* param = gst_structure_new(
      kRoiType, "object", G_TYPE_UINT, static_cast<guint>(number), "lost", G_TYPE_BOOLEAN,
      object.lost ? TRUE : FALSE, "score", G_TYPE_DOUBLE, static_cast<double>(object.score),
      "stability", G_TYPE_DOUBLE, object.stability, "area", G_TYPE_INT64,
      static_cast<gint64>(object.area), "height", G_TYPE_INT, GST_VIDEO_INFO_HEIGHT(&info), "width",
      G_TYPE_INT, GST_VIDEO_INFO_WIDTH(&info), nullptr);
  if (object.rle != nullptr) {
    gst_structure_set(param, "rle", G_TYPE_STRING, object.rle, nullptr);
  }
  gst_video_region_of_interest_meta_add_param(meta, param);
}

}  // namespace glesam_gst
