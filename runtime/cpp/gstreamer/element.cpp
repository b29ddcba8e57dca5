// The element glesamsegment: finds the objects of prompts in each frame of RGB, BGR or NV12 video.
//
// Each frame leaves as it came, with a GstVideoRegionOfInterestMeta for each object, and with the
// masks drawn over it if that is asked for. docs/gstreamer.md describes the properties.
#include <gst/base/gstbasetransform.h>
#include <gst/gst.h>
#include <gst/video/gstvideofilter.h>
#include <gst/video/video.h>

#include <memory>
#include <string>
#include <vector>

#include "glesam_c.h"
#include "overlay.h"
#include "segmenter.h"
#include "settings.h"
#include "video.h"

GST_DEBUG_CATEGORY_STATIC(glesam_segment_debug);
#define GST_CAT_DEFAULT glesam_segment_debug

namespace {

using namespace glesam_gst;

struct State {
  Settings settings;             // guarded by the element's object lock
  bool prompts_changed = false;  // guarded too
  // Exists while the element runs. Used by the streaming thread only, except in start and stop.
  std::unique_ptr<Segmenter> segmenter;
  std::vector<bool> was_lost;  // the state of each object that was last posted
};

}  // namespace

struct GlesamSegment {
  GstVideoFilter parent;
  State* state;
};

struct GlesamSegmentClass {
  GstVideoFilterClass parent_class;
};

G_DEFINE_TYPE(GlesamSegment, glesam_segment, GST_TYPE_VIDEO_FILTER)

namespace {

GlesamSegment* self_of(gpointer object) { return reinterpret_cast<GlesamSegment*>(object); }

void set_property(GObject* object, guint property, const GValue* value, GParamSpec* spec) {
  GlesamSegment* self = self_of(object);
  GST_OBJECT_LOCK(self);
  const bool known = set_setting(self->state->settings, property, value);
  if (is_prompt(property)) self->state->prompts_changed = true;
  GST_OBJECT_UNLOCK(self);
  if (!known) G_OBJECT_WARN_INVALID_PROPERTY_ID(object, property, spec);
}

void get_property(GObject* object, guint property, GValue* value, GParamSpec* spec) {
  GlesamSegment* self = self_of(object);
  GST_OBJECT_LOCK(self);
  const bool known = get_setting(self->state->settings, property, value);
  GST_OBJECT_UNLOCK(self);
  if (!known) G_OBJECT_WARN_INVALID_PROPERTY_ID(object, property, spec);
}

// Copies the settings for a frame or a start, and says whether the prompts changed since the last copy.
Settings taken_settings(GlesamSegment* self, bool& prompts_changed) {
  GST_OBJECT_LOCK(self);
  Settings copy = self->state->settings;
  prompts_changed = self->state->prompts_changed;
  self->state->prompts_changed = false;
  GST_OBJECT_UNLOCK(self);
  return copy;
}

// Posts why the bundle cannot be opened.
void post_opening_error(GlesamSegment* self, const Problem& problem) {
  const char* message = problem.message.c_str();
  switch (problem.code) {
    case GLESAM_BAD_BUNDLE:
      GST_ELEMENT_ERROR(self, RESOURCE, OPEN_READ, ("%s", message), (nullptr));
      break;
    case GLESAM_BACKEND: GST_ELEMENT_ERROR(self, LIBRARY, INIT, ("%s", message), (nullptr)); break;
    case GLESAM_OUT_OF_MEMORY:
      GST_ELEMENT_ERROR(self, RESOURCE, NO_SPACE_LEFT, ("%s", message), (nullptr));
      break;
    default: GST_ELEMENT_ERROR(self, RESOURCE, SETTINGS, ("%s", message), (nullptr)); break;
  }
}

// No exception may leave a function that GStreamer calls.
template <typename Work>
bool survives(GlesamSegment* self, Work&& work) {
  try {
    work();
    return true;
  } catch (const std::exception& error) {
    GST_ELEMENT_ERROR(self, RESOURCE, FAILED, ("%s", error.what()), (nullptr));
    return false;
  }
}

gboolean start(GstBaseTransform* transform) {
  GlesamSegment* self = self_of(transform);
  survives(self, [&] {
    bool changed = false;
    Problem problem;
    self->state->segmenter = Segmenter::open(taken_settings(self, changed), problem);
    self->state->was_lost.clear();
    if (problem.code != GLESAM_OK) post_opening_error(self, problem);
  });
  return self->state->segmenter != nullptr;
}

gboolean stop(GstBaseTransform* transform) {
  self_of(transform)->state->segmenter.reset();
  return TRUE;
}

gboolean set_info(GstVideoFilter* filter, GstCaps*, GstVideoInfo* in, GstCaps*, GstVideoInfo*) {
  GlesamSegment* self = self_of(filter);
  if (!is_convertible(*in)) {
    GST_ELEMENT_ERROR(self, STREAM, WRONG_TYPE,
                      ("NV12 with a colour matrix that is none of BT.601, BT.709 and BT.2020; put "
                       "videoconvert before glesamsegment and ask it for RGB"),
                      (nullptr));
    return FALSE;
  }
  // The frames may have another size than those before.
  if (self->state->segmenter) self->state->segmenter->restart();
  return TRUE;
}

// Posts a message for each object that was lost or found again.
void post_changes(GlesamSegment* self, const std::vector<Object>& objects, GstClockTime time) {
  std::vector<bool>& was_lost = self->state->was_lost;
  was_lost.resize(objects.size(), false);
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (was_lost[i] == objects[i].lost) continue;
    was_lost[i] = objects[i].lost;
    GstStructure* changed = gst_structure_new(
        objects[i].lost ? "glesam-lost" : "glesam-found", "object", G_TYPE_UINT,
        static_cast<guint>(i), "timestamp", G_TYPE_UINT64, static_cast<guint64>(time), nullptr);
    gst_element_post_message(GST_ELEMENT(self), gst_message_new_element(GST_OBJECT(self), changed));
  }
}

GstFlowReturn work_on(GlesamSegment* self, GstVideoFrame* frame) {
  Segmenter& segmenter = *self->state->segmenter;
  bool prompts_changed = false;
  const Settings settings = taken_settings(self, prompts_changed);
  std::string problem =
      prompts_changed ? segmenter.set_prompts(settings.points, settings.boxes) : std::string();
  std::vector<Object> objects;
  if (problem.empty()) {
    const glesam_frame given = frame_of(frame);
    const char* failed = segmenter.segment(given, settings.follow, settings.overlay, objects);
    if (failed != nullptr) problem = failed;
  }
  if (!problem.empty()) {
    GST_ELEMENT_ERROR(self, STREAM, FAILED, ("%s", problem.c_str()), (nullptr));
    return GST_FLOW_ERROR;
  }
  for (std::size_t i = 0; i < objects.size(); ++i) {
    attach(frame->buffer, frame->info, i, objects[i]);
    if (settings.overlay && objects[i].mask != nullptr) draw_mask(frame, objects[i].mask, i);
  }
  post_changes(self, objects, GST_BUFFER_PTS(frame->buffer));
  return GST_FLOW_OK;
}

GstFlowReturn transform_frame_ip(GstVideoFilter* filter, GstVideoFrame* frame) {
  GlesamSegment* self = self_of(filter);
  GstFlowReturn result = GST_FLOW_ERROR;
  survives(self, [&] { result = work_on(self, frame); });
  return result;
}

void finalize(GObject* object) {
  delete self_of(object)->state;
  G_OBJECT_CLASS(glesam_segment_parent_class)->finalize(object);
}

}  // namespace

static void glesam_segment_class_init(GlesamSegmentClass* type) {
  GObjectClass* object = G_OBJECT_CLASS(type);
  object->set_property = set_property;
  object->get_property = get_property;
  object->finalize = finalize;
  install_properties(object);

  GstElementClass* element = GST_ELEMENT_CLASS(type);
  gst_element_class_set_static_metadata(
      element, "GleSAM segmentation", "Filter/Analyzer/Video",
      "Segments objects in images of any quality, by points and boxes", "the glesam-deploy authors");
  GstCaps* caps = gst_caps_from_string(GST_VIDEO_CAPS_MAKE("{ RGB, BGR, NV12 }"));
  gst_element_class_add_pad_template(
      element, gst_pad_template_new("sink", GST_PAD_SINK, GST_PAD_ALWAYS, caps));
  gst_element_class_add_pad_template(element,
                                     gst_pad_template_new("src", GST_PAD_SRC, GST_PAD_ALWAYS, caps));
  gst_caps_unref(caps);

  GST_BASE_TRANSFORM_CLASS(type)->start = start;
  GST_BASE_TRANSFORM_CLASS(type)->stop = stop;
  GST_VIDEO_FILTER_CLASS(type)->set_info = set_info;
  GST_VIDEO_FILTER_CLASS(type)->transform_frame_ip = transform_frame_ip;
}

static void glesam_segment_init(GlesamSegment* self) {
  self->state = new State;
  // A frame that is too late for the sink is dropped before the model runs on it.
  gst_base_transform_set_qos_enabled(GST_BASE_TRANSFORM(self), TRUE);
}

static gboolean register_element(GstPlugin* plugin) {
  GST_DEBUG_CATEGORY_INIT(glesam_segment_debug, "glesamsegment", 0, "GleSAM segmentation");
  return gst_element_register(plugin, "glesamsegment", GST_RANK_NONE, glesam_segment_get_type());
}

#define PACKAGE "glesam"
GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, glesam, "Segmentation with GleSAM bundles",
                  register_element, GLESAM_VERSION, "Apache 2.0", "glesam-deploy", "glesam-deploy")
