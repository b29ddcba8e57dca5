// Unplugs glesamsegment from a running pipeline and plugs a new one in, many times.
// Usage: replug BUNDLE TIMES
//
// It prints the resident memory in MiB after the tenth and after the last time.
#include <gst/gst.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "memory.h"

namespace {

std::mutex mutex;
std::condition_variable changed;
int frames = 0;
bool blocked = false;

GstPadProbeReturn on_frame(GstPad*, GstPadProbeInfo*, gpointer) {
  const std::lock_guard<std::mutex> lock(mutex);
  ++frames;
  changed.notify_all();
  return GST_PAD_PROBE_OK;
}

GstPadProbeReturn on_block(GstPad*, GstPadProbeInfo*, gpointer) {
  const std::lock_guard<std::mutex> lock(mutex);
  blocked = true;
  changed.notify_all();
  return GST_PAD_PROBE_OK;  // stays blocked until the probe is removed
}

GstElement* make_segment(const char* bundle) {
  GstElement* segment = gst_element_factory_make("glesamsegment", nullptr);
  g_object_set(segment, "bundle", bundle, "points", "40,30", "follow", TRUE, "overlay", TRUE,
               nullptr);
  return segment;
}

int run(const char* bundle, int times) {
  GstElement* pipeline = gst_pipeline_new(nullptr);
  GstElement* source = gst_parse_bin_from_description(
      "videotestsrc ! video/x-raw,format=RGB,width=80,height=60,framerate=30/1", TRUE, nullptr);
  GstElement* sink = gst_element_factory_make("fakesink", nullptr);
  g_object_set(sink, "sync", FALSE, nullptr);
  GstElement* segment = make_segment(bundle);
  gst_bin_add_many(GST_BIN(pipeline), source, segment, sink, nullptr);
  if (gst_element_link_many(source, segment, sink, nullptr) == FALSE) return 1;
  GstPad* out = gst_element_get_static_pad(source, "src");
  GstPad* in = gst_element_get_static_pad(sink, "sink");
  gst_pad_add_probe(in, GST_PAD_PROBE_TYPE_BUFFER, on_frame, nullptr, nullptr);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  double before = 0;
  for (int i = 0; i < times; ++i) {
    std::unique_lock<std::mutex> lock(mutex);
    const int seen = frames;
    changed.wait(lock, [&] { return frames >= seen + 2; });
    blocked = false;
    lock.unlock();
    const gulong probe = gst_pad_add_probe(out, GST_PAD_PROBE_TYPE_BLOCK_DOWNSTREAM, on_block,
                                           nullptr, nullptr);
    lock.lock();
    changed.wait(lock, [] { return blocked; });
    lock.unlock();
    gst_element_unlink_many(source, segment, sink, nullptr);
    gst_element_set_state(segment, GST_STATE_NULL);
    gst_bin_remove(GST_BIN(pipeline), segment);
    segment = make_segment(bundle);
    gst_bin_add(GST_BIN(pipeline), segment);
    if (gst_element_link_many(source, segment, sink, nullptr) == FALSE) return 1;
    if (gst_element_sync_state_with_parent(segment) == FALSE) return 1;
    gst_pad_remove_probe(out, probe);
    if (i + 1 == 10) before = resident_mib();
  }
  {
    std::unique_lock<std::mutex> lock(mutex);
    const int seen = frames;
    changed.wait(lock, [&] { return frames >= seen + 2; });
  }
  const double after = resident_mib();
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(out);
  gst_object_unref(in);
  gst_object_unref(pipeline);
  std::printf("{\"times\": %d, \"memory\": [%.1f, %.1f]}\n", times, before, after);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  gst_init(&argc, &argv);
  if (argc != 3) {
    std::fprintf(stderr, "usage: replug BUNDLE TIMES\n");
    return 2;
  }
  const int code = run(argv[1], std::atoi(argv[2]));
  gst_deinit();
  return code;
}
