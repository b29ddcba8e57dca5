// Runs a pipeline and writes the regions that its element "segment" attaches.
// Usage: run_pipeline RECORDS PIPELINE
//
// RECORDS receives a line for each frame and object: frame, object, lost, score, stability, area, x,
// y, width, height and RLE ("-" if there is none), with tabs between. A JSON object on standard output
// says how many frames left the element, the frames a second from the tenth to the last, the resident
// memory in MiB at the thirtieth and at the last frame, and how many frames were dropped as too late.
// An error message is printed and the exit code is 1.
#include <gst/gst.h>
#include <gst/video/video.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>

#include "memory.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Watch {
  std::ofstream records;
  int frames = 0;
  Clock::time_point tenth, last;
  double memory_before = 0;
};

GstPadProbeReturn on_buffer(GstPad*, GstPadProbeInfo* info, gpointer data) {
  auto* watch = static_cast<Watch*>(data);
  gpointer state = nullptr;
  GstBuffer* buffer = GST_PAD_PROBE_INFO_BUFFER(info);
  while (GstMeta* meta = gst_buffer_iterate_meta_filtered(
             buffer, &state, GST_VIDEO_REGION_OF_INTEREST_META_API_TYPE)) {
    auto* roi = reinterpret_cast<GstVideoRegionOfInterestMeta*>(meta);
    GstStructure* param = gst_video_region_of_interest_meta_get_param(roi, "glesam");
    if (param == nullptr) continue;
    guint object = 0;
    gboolean lost = FALSE;
    double score = 0, stability = 0;
    gint64 area = 0;
    gst_structure_get(param, "object", G_TYPE_UINT, &object, "lost", G_TYPE_BOOLEAN, &lost, "score",
                      G_TYPE_DOUBLE, &score, "stability", G_TYPE_DOUBLE, &stability, "area",
                      G_TYPE_INT64, &area, nullptr);
    const char* rle = gst_structure_get_string(param, "rle");
    watch->records << watch->frames << '\t' << object << '\t' << (lost != FALSE) << '\t' << score
                   << '\t' << stability << '\t' << area << '\t' << roi->x << '\t' << roi->y << '\t'
                   << roi->w << '\t' << roi->h << '\t' << (rle != nullptr ? rle : "-") << '\n';
  }
  ++watch->frames;
  watch->last = Clock::now();
  if (watch->frames == 10) watch->tenth = watch->last;
  if (watch->frames == 30) watch->memory_before = resident_mib();
  return GST_PAD_PROBE_OK;
}

int run(const char* records, const char* text) {
  GError* problem = nullptr;
  GstElement* pipeline = gst_parse_launch(text, &problem);
  if (problem != nullptr) {
    std::printf("error: %s\n", problem->message);
    return 1;
  }
  Watch watch;
  watch.records.open(records);
  GstElement* segment = gst_bin_get_by_name(GST_BIN(pipeline), "segment");
  GstPad* pad = gst_element_get_static_pad(segment, "src");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, on_buffer, &watch, nullptr);
  GstBus* bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  int dropped = 0, code = -1;
  while (code < 0) {
    GstMessage* message = gst_bus_timed_pop(bus, GST_CLOCK_TIME_NONE);
    switch (GST_MESSAGE_TYPE(message)) {
      case GST_MESSAGE_EOS: code = 0; break;
      case GST_MESSAGE_QOS: ++dropped; break;
      case GST_MESSAGE_ERROR: {
        GError* error = nullptr;
        gst_message_parse_error(message, &error, nullptr);
        std::printf("error: %s: %s\n", GST_OBJECT_NAME(message->src), error->message);
        g_error_free(error);
        code = 1;
        break;
      }
      default: break;
    }
    gst_message_unref(message);
  }
  const double memory_after = resident_mib();
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(bus);
  gst_object_unref(pad);
  gst_object_unref(segment);
  gst_object_unref(pipeline);
  if (code == 0) {
    const double seconds = std::chrono::duration<double>(watch.last - watch.tenth).count();
    std::printf(
        "{\"frames\": %d, \"per_second\": %.3f, \"memory\": [%.1f, %.1f], \"dropped\": %d}\n",
        watch.frames, watch.frames > 10 ? (watch.frames - 10) / seconds : 0.0, watch.memory_before,
        memory_after, dropped);
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  gst_init(&argc, &argv);
  if (argc != 3) {
    std::fprintf(stderr, "usage: run_pipeline RECORDS PIPELINE\n");
    return 2;
  }
  return run(argv[1], argv[2]);
}
