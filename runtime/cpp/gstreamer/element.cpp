// The element glesamsegment: finds the objects of prompts in each frame of RGB, BGR or NV12 video.
//
// Each frame leaves as it came, with a GstVideoRegionOfInterestMeta for each object, and with the
// masks drawn over it if that is asked for. docs/gstreamer.md describes the properties.
#include <gst/base/gstbasetransform.h>
#include <gst/gst.h>
#include <gst/video/gstvideofilter.h>
#include <gst/video/video.h>

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "glesam_c.h"
#include "glesam_follow_c.h"
#include "overlay.h"
#include "prompt_text.h"

GST_DEBUG_CATEGORY_STATIC(glesam_segment_debug);
#define GST_CAT_DEFAULT glesam_segment_debug

namespace {

constexpr const char* kRoiType = "glesam";

enum class Enhance { always = 0, never = 1 };

// The values of the properties. Guarded by the element's object lock.
struct Settings {
  std::string bundle, backend = "auto", device, engine_library, points, boxes;
  int threads = 0;
  Enhance enhance = Enhance::always;
  bool follow = false, overlay = false;
  double min_score = 0, min_stability = 0;
};

struct ClosePredictor {
  void operator()(glesam_predictor* predictor) const { glesam_close(predictor); }
};
struct CloseFollower {
  void operator()(glesam_follower* follower) const { glesam_follow_close(follower); }
};

// An object in a frame.
struct Object {
  bool lost = false;
  float score = 0;
  double stability = 0;
  std::int64_t area = 0;
  glesam_box box{};
  const std::uint8_t* mask = nullptr;
  const char* rle = nullptr;
};

// What exists while the element runs. Used by the streaming thread only, except in start and stop.
struct Running {
  std::unique_ptr<glesam_predictor, ClosePredictor> predictor;
  std::unique_ptr<glesam_follower, CloseFollower> follower;  // is closed first
  glesam_gst::Prompts prompts;
  bool started = false;       // whether the follower has its prompts
  std::vector<bool> was_lost;  // the state of each object that was last posted
};

struct State {
  Settings settings;
  bool prompts_changed = false;  // guarded as settings are
  std::unique_ptr<Running> running;
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

enum Property {
  kNone,
  kBundle,
  kBackend,
  kDevice,
  kEngineLibrary,
  kThreads,
  kPoints,
  kBoxes,
  kEnhance,
  kFollow,
  kMinScore,
  kMinStability,
  kOverlay,
};

GType enhance_type() {
  static const GType type = [] {
    static const GEnumValue values[] = {
        {static_cast<int>(Enhance::always), "Run the enhancer on every frame", "always"},
        {static_cast<int>(Enhance::never), "Skip the enhancer, which is plain SAM", "never"},
        {0, nullptr, nullptr}};
    return g_enum_register_static("GlesamSegmentEnhance", values);
  }();
  return type;
}

GlesamSegment* self_of(gpointer object) { return reinterpret_cast<GlesamSegment*>(object); }

std::string* text_of(Settings& settings, guint property) {
  switch (property) {
    case kBundle: return &settings.bundle;
    case kBackend: return &settings.backend;
    case kDevice: return &settings.device;
    case kEngineLibrary: return &settings.engine_library;
    case kPoints: return &settings.points;
    case kBoxes: return &settings.boxes;
    default: return nullptr;
  }
}

void set_property(GObject* object, guint property, const GValue* value, GParamSpec* spec) {
  GlesamSegment* self = self_of(object);
  GST_OBJECT_LOCK(self);
  Settings& settings = self->state->settings;
  if (std::string* text = text_of(settings, property)) {
    const char* given = g_value_get_string(value);
    *text = given != nullptr ? given : "";
    if (property == kPoints || property == kBoxes) self->state->prompts_changed = true;
  } else if (property == kThreads) {
    settings.threads = g_value_get_int(value);
  } else if (property == kEnhance) {
    settings.enhance = static_cast<Enhance>(g_value_get_enum(value));
  } else if (property == kFollow) {
    settings.follow = g_value_get_boolean(value) != FALSE;
  } else if (property == kOverlay) {
    settings.overlay = g_value_get_boolean(value) != FALSE;
  } else if (property == kMinScore) {
    settings.min_score = g_value_get_double(value);
  } else if (property == kMinStability) {
    settings.min_stability = g_value_get_double(value);
  } else {
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, property, spec);
  }
  GST_OBJECT_UNLOCK(self);
}

void get_property(GObject* object, guint property, GValue* value, GParamSpec* spec) {
  GlesamSegment* self = self_of(object);
  GST_OBJECT_LOCK(self);
  Settings& settings = self->state->settings;
  if (const std::string* text = text_of(settings, property)) {
    g_value_set_string(value, text->c_str());
  } else if (property == kThreads) {
    g_value_set_int(value, settings.threads);
  } else if (property == kEnhance) {
    g_value_set_enum(value, static_cast<int>(settings.enhance));
  } else if (property == kFollow) {
    g_value_set_boolean(value, settings.follow);
  } else if (property == kOverlay) {
    g_value_set_boolean(value, settings.overlay);
  } else if (property == kMinScore) {
    g_value_set_double(value, settings.min_score);
  } else if (property == kMinStability) {
    g_value_set_double(value, settings.min_stability);
  } else {
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, property, spec);
  }
  GST_OBJECT_UNLOCK(self);
}

Settings settings_of(GlesamSegment* self) {
  GST_OBJECT_LOCK(self);
  Settings copy = self->state->settings;
  GST_OBJECT_UNLOCK(self);
  return copy;
}

// Posts the error of a call of the library that opens the bundle.
void post_opening_error(GlesamSegment* self, int code, const char* message) {
  switch (code) {
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

gboolean open(GlesamSegment* self) {
  const Settings settings = settings_of(self);
  auto running = std::make_unique<Running>();
  const std::string problem =
      settings.bundle.empty()
          ? "bundle: not set; set bundle=FOLDER"
          : glesam_gst::read_prompts(settings.points, settings.boxes, running->prompts);
  if (!problem.empty()) {
    GST_ELEMENT_ERROR(self, RESOURCE, SETTINGS, ("%s", problem.c_str()), (nullptr));
    return FALSE;
  }
  glesam_params params = glesam_default_params();
  params.backend = settings.backend.c_str();
  params.device = settings.device.c_str();
  params.engine_library = settings.engine_library.c_str();
  params.threads = settings.threads;
  params.skip_enhancer = settings.enhance == Enhance::never ? 1 : 0;
  glesam_predictor* predictor = nullptr;
  char message[2048];
  int code = glesam_open(settings.bundle.c_str(), &params, &predictor, message, sizeof message);
  if (code != GLESAM_OK) {
    post_opening_error(self, code, message);
    return FALSE;
  }
  running->predictor.reset(predictor);
  glesam_follow_params how{};
  how.struct_size = sizeof how;
  how.min_score = settings.min_score;
  how.min_stability = settings.min_stability;
  glesam_follower* follower = nullptr;
  code = glesam_follow_open(predictor, &how, &follower);
  if (code != GLESAM_OK) {
    post_opening_error(self, code, "the follower cannot be created");
    return FALSE;
  }
  running->follower.reset(follower);
  self->state->running = std::move(running);
  GST_OBJECT_LOCK(self);
  self->state->prompts_changed = false;
  GST_OBJECT_UNLOCK(self);
  return TRUE;
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
  gboolean opened = FALSE;
  survives(self, [&] { opened = open(self); });
  return opened;
}

gboolean stop(GstBaseTransform* transform) {
  self_of(transform)->state->running.reset();
  return TRUE;
}

gboolean set_info(GstVideoFilter* filter, GstCaps*, GstVideoInfo* in, GstCaps*, GstVideoInfo*) {
  GlesamSegment* self = self_of(filter);
  const GstVideoColorMatrix matrix = in->colorimetry.matrix;
  if (GST_VIDEO_INFO_FORMAT(in) == GST_VIDEO_FORMAT_NV12 &&
      matrix != GST_VIDEO_COLOR_MATRIX_BT601 && matrix != GST_VIDEO_COLOR_MATRIX_BT709 &&
      matrix != GST_VIDEO_COLOR_MATRIX_BT2020) {
    GST_ELEMENT_ERROR(self, STREAM, WRONG_TYPE,
                      ("NV12 with a colour matrix that is none of BT.601, BT.709 and BT.2020; put "
                       "videoconvert before glesamsegment and ask it for RGB"),
                      (nullptr));
    return FALSE;
  }
  // The frames may have another size than those before.
  if (self->state->running) self->state->running->started = false;
  return TRUE;
}

int matrix_of(const GstVideoInfo& info) {
  switch (info.colorimetry.matrix) {
    case GST_VIDEO_COLOR_MATRIX_BT709: return GLESAM_YUV_BT709;
    case GST_VIDEO_COLOR_MATRIX_BT2020: return GLESAM_YUV_BT2020;
    default: return GLESAM_YUV_BT601;  // of NV12, set_info accepts no other
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

glesam_prompts view_of(const glesam_gst::Prompts& prompts) {
  glesam_prompts view{};
  view.count = prompts.count;
  if (!prompts.points.empty()) {
    view.points = prompts.points.data();
    view.labels = prompts.labels.data();
    view.points_per_prompt = prompts.points_per_prompt;
  }
  if (!prompts.boxes.empty()) view.boxes = prompts.boxes.data();
  return view;
}

// Finds the objects by the prompts. Returns what is wrong, or null.
const char* prompted(Running& running, const glesam_frame& frame, bool masks,
                     std::vector<Object>& objects) {
  glesam_predictor* predictor = running.predictor.get();
  if (glesam_set_frame(predictor, &frame) != GLESAM_OK) return glesam_message(predictor);
  const glesam_prompts prompts = view_of(running.prompts);
  glesam_request request{};
  request.struct_size = sizeof request;
  request.skip_masks = masks ? 0 : 1;
  request.rle = 1;
  glesam_output found{};
  found.struct_size = sizeof found;
  if (glesam_predict_as(predictor, &prompts, &request, &found) != GLESAM_OK) {
    return glesam_message(predictor);
  }
  for (size_t i = 0; i < found.count; ++i) {
    Object object;
    object.score = found.scores[i];
    object.stability = found.stability[i];
    object.area = found.areas[i];
    object.box = found.boxes[i];
    object.mask = masks ? found.masks + i * found.height * found.width : nullptr;
    object.rle = found.rle[i];
    objects.push_back(object);
  }
  return nullptr;
}

// Follows the objects from the frame before. Returns what is wrong, or null.
const char* followed(Running& running, const glesam_frame& frame, std::vector<Object>& objects) {
  glesam_follower* follower = running.follower.get();
  const glesam_prompts prompts = view_of(running.prompts);
  const int code = running.started ? glesam_follow_next(follower, &frame)
                                   : glesam_follow_start(follower, &frame, &prompts);
  if (code != GLESAM_OK) return glesam_follow_message(follower);
  running.started = true;
  for (size_t i = 0; i < glesam_follow_count(follower); ++i) {
    glesam_followed found{};
    found.struct_size = sizeof found;
    if (glesam_follow_get(follower, i, &found) != GLESAM_OK) return glesam_follow_message(follower);
    objects.push_back({found.lost != 0, found.score, found.stability, found.area, found.box,
                       found.mask, found.rle});
  }
  return nullptr;
}

// Adds the region of an object to a buffer.
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

// Posts a message for each object that was lost or found again.
void post_changes(GlesamSegment* self, Running& running, const std::vector<Object>& objects,
                  GstClockTime time) {
  running.was_lost.resize(objects.size(), false);
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (running.was_lost[i] == objects[i].lost) continue;
    running.was_lost[i] = objects[i].lost;
    GstStructure* changed = gst_structure_new(
        objects[i].lost ? "glesam-lost" : "glesam-found", "object", G_TYPE_UINT,
        static_cast<guint>(i), "timestamp", G_TYPE_UINT64, static_cast<guint64>(time), nullptr);
    gst_element_post_message(GST_ELEMENT(self), gst_message_new_element(GST_OBJECT(self), changed));
  }
}

// Reads the prompts again if a property changed. Returns what is wrong with them.
std::string renew_prompts(GlesamSegment* self, Running& running) {
  GST_OBJECT_LOCK(self);
  const bool changed = self->state->prompts_changed;
  self->state->prompts_changed = false;
  const std::string points = changed ? self->state->settings.points : "";
  const std::string boxes = changed ? self->state->settings.boxes : "";
  GST_OBJECT_UNLOCK(self);
  if (!changed) return "";
  running.started = false;
  return glesam_gst::read_prompts(points, boxes, running.prompts);
}

GstFlowReturn work_on(GlesamSegment* self, GstVideoFrame* frame) {
  Running& running = *self->state->running;
  const Settings settings = settings_of(self);
  std::string problem = renew_prompts(self, running);
  std::vector<Object> objects;
  if (problem.empty()) {
    const glesam_frame given = frame_of(frame);
    const char* failed = settings.follow ? followed(running, given, objects)
                                         : prompted(running, given, settings.overlay, objects);
    if (failed != nullptr) problem = failed;
  }
  if (!problem.empty()) {
    GST_ELEMENT_ERROR(self, STREAM, FAILED, ("%s", problem.c_str()), (nullptr));
    return GST_FLOW_ERROR;
  }
  if (!settings.follow) running.started = false;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    attach(frame->buffer, frame->info, i, objects[i]);
    if (settings.overlay && objects[i].mask != nullptr) {
      glesam_gst::draw_mask(frame, objects[i].mask, i);
    }
  }
  post_changes(self, running, objects, GST_BUFFER_PTS(frame->buffer));
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

void add_text(GObjectClass* type, Property property, const char* name, const char* help,
              const char* initial, bool changes_while_playing = false) {
  const int flags = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS |
                    (changes_while_playing ? GST_PARAM_MUTABLE_PLAYING : GST_PARAM_MUTABLE_READY);
  g_object_class_install_property(
      type, property,
      g_param_spec_string(name, name, help, initial, static_cast<GParamFlags>(flags)));
}

void install_properties(GObjectClass* type) {
  const auto ready = static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS |
                                              GST_PARAM_MUTABLE_READY);
  const auto playing = static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS |
                                                GST_PARAM_MUTABLE_PLAYING);
  add_text(type, kBundle, "bundle", "Folder of the bundle", "");
  add_text(type, kBackend, "backend", "auto, openvino, onnxruntime or tensorrt", "auto");
  add_text(type, kDevice, "device", "Device of the backend, such as cuda:0; empty: its default", "");
  add_text(type, kEngineLibrary, "engine-library",
           "Path of libonnxruntime or libnvinfer; empty: the dynamic loader searches for it", "");
  add_text(type, kPoints, "points",
           "Points of each object: x,y or x,y,label in pixels, spaces between points, ; between "
           "objects. Label 1 marks the object, 0 the background. With follow, for the next frame",
           "", true);
  add_text(type, kBoxes, "boxes",
           "A box for each object: x0,y0,x1,y1 in pixels, ; between objects. With follow, for the "
           "next frame",
           "", true);
  g_object_class_install_property(
      type, kThreads,
      g_param_spec_int("threads", "threads", "Threads of the engine; 0: the engine decides", 0,
                       4096, 0, ready));
  g_object_class_install_property(
      type, kEnhance,
      g_param_spec_enum("enhance", "enhance", "When to run the enhancer", enhance_type(),
                        static_cast<int>(Enhance::always), ready));
  g_object_class_install_property(
      type, kFollow,
      g_param_spec_boolean("follow", "follow",
                           "Follow the objects from frame to frame; false: prompt each frame alike",
                           FALSE, playing));
  g_object_class_install_property(
      type, kMinScore,
      g_param_spec_double("min-score", "min-score",
                          "With follow, an object with a lower score is lost; 0: the default, 0.6",
                          0, 1, 0, ready));
  g_object_class_install_property(
      type, kMinStability,
      g_param_spec_double("min-stability", "min-stability",
                          "With follow, an object with a lower stability is lost; 0: the default, "
                          "0.7",
                          0, 1, 0, ready));
  g_object_class_install_property(
      type, kOverlay,
      g_param_spec_boolean("overlay", "overlay", "Draw the masks over the frames", FALSE, playing));
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
  gst_type_mark_as_plugin_api(enhance_type(), static_cast<GstPluginAPIFlags>(0));
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
