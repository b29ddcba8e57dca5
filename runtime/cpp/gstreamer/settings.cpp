#include "settings.h"

#include <gst/gst.h>

namespace glesam_gst {
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

constexpr int kReady = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY;
constexpr int kPlaying = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING;

GType enhance_type() {
  static const GType type = [] {
    static const GEnumValue values[] = {
        {static_cast<int>(Enhance::automatic),
         "Enhance the frames that the bundle's gate chooses; every frame if it has none", "auto"},
        {static_cast<int>(Enhance::always), "Run the enhancer on every frame", "always"},
        {static_cast<int>(Enhance::never), "Skip the enhancer, which is plain SAM", "never"},
        {0, nullptr, nullptr}};
    return g_enum_register_static("GlesamSegmentEnhance", values);
  }();
  return type;
}

// Returns the member of a property, or null if it has another type.
std::string Settings::* text_of(guint property) {
  switch (property) {
    case kBundle: return &Settings::bundle;
    case kBackend: return &Settings::backend;
    case kDevice: return &Settings::device;
    case kEngineLibrary: return &Settings::engine_library;
    case kPoints: return &Settings::points;
    case kBoxes: return &Settings::boxes;
    default: return nullptr;
  }
}

bool Settings::* flag_of(guint property) {
  return property == kFollow ? &Settings::follow : property == kOverlay ? &Settings::overlay : nullptr;
}

double Settings::* number_of(guint property) {
  return property == kMinScore       ? &Settings::min_score
         : property == kMinStability ? &Settings::min_stability
                                     : nullptr;
}

void add_text(GObjectClass* type, Property property, const char* name, const char* help, int flags) {
  const std::string initial = Settings().*text_of(property);
  g_object_class_install_property(type, property,
                                  g_param_spec_string(name, name, help, initial.c_str(),
                                                      static_cast<GParamFlags>(flags)));
}

void add_flag(GObjectClass* type, Property property, const char* name, const char* help) {
  g_object_class_install_property(
      type, property,
      g_param_spec_boolean(name, name, help, FALSE, static_cast<GParamFlags>(kPlaying)));
}

void add_share(GObjectClass* type, Property property, const char* name, const char* help) {
  g_object_class_install_property(
      type, property,
      g_param_spec_double(name, name, help, 0, 1, 0, static_cast<GParamFlags>(kReady)));
}

}  // namespace

void install_properties(GObjectClass* type) {
  add_text(type, kBundle, "bundle", "Folder of the bundle", kReady);
  add_text(type, kBackend, "backend", "auto, openvino, onnxruntime or tensorrt", kReady);
  add_text(type, kDevice, "device", "Device of the backend, such as cuda:0; empty: its default", kReady);
  add_text(type, kEngineLibrary, "engine-library",
           "Path of libonnxruntime or libnvinfer; empty: the dynamic loader searches for it", kReady);
  add_text(type, kPoints, "points",
           "Points of each object: x,y or x,y,label in pixels, spaces between points, ; between "
           "objects. Label 1 marks the object, 0 the background. With follow, for the next frame",
           kPlaying);
  add_text(type, kBoxes, "boxes",
           "A box for each object: x0,y0,x1,y1 in pixels, ; between objects. With follow, for the "
           "next frame",
           kPlaying);
  g_object_class_install_property(
      type, kThreads,
      g_param_spec_int("threads", "threads", "Threads of the engine; 0: the engine decides", 0,
                       4096, 0, static_cast<GParamFlags>(kReady)));
  g_object_class_install_property(
      type, kEnhance,
      g_param_spec_enum("enhance", "enhance", "When to run the enhancer", enhance_type(),
                        static_cast<int>(Enhance::automatic), static_cast<GParamFlags>(kReady)));
  add_flag(type, kFollow, "follow",
           "Follow the objects from frame to frame; false: prompt each frame alike");
  add_share(type, kMinScore, "min-score",
            "With follow, an object with a lower score is lost; 0: the default, 0.6");
  add_share(type, kMinStability, "min-stability",
            "With follow, an object with a lower stability is lost; 0: the default, 0.7");
  add_flag(type, kOverlay, "overlay", "Draw the masks over the frames");
  gst_type_mark_as_plugin_api(enhance_type(), static_cast<GstPluginAPIFlags>(0));
}

bool is_prompt(guint property) { return property == kPoints || property == kBoxes; }

bool set_setting(Settings& settings, guint property, const GValue* value) {
  if (const auto text = text_of(property)) {
    const char* given = g_value_get_string(value);
    settings.*text = given != nullptr ? given : "";
  } else if (const auto flag = flag_of(property)) {
    settings.*flag = g_value_get_boolean(value) != FALSE;
  } else if (const auto number = number_of(property)) {
    settings.*number = g_value_get_double(value);
  } else if (property == kThreads) {
    settings.threads = g_value_get_int(value);
  } else if (property == kEnhance) {
    settings.enhance = static_cast<Enhance>(g_value_get_enum(value));
  } else {
    return false;
  }
  return true;
}

bool get_setting(const Settings& settings, guint property, GValue* value) {
  if (const auto text = text_of(property)) {
    g_value_set_string(value, (settings.*text).c_str());
  } else if (const auto flag = flag_of(property)) {
    g_value_set_boolean(value, settings.*flag);
  } else if (const auto number = number_of(property)) {
    g_value_set_double(value, settings.*number);
  } else if (property == kThreads) {
    g_value_set_int(value, settings.threads);
  } else if (property == kEnhance) {
    g_value_set_enum(value, static_cast<int>(settings.enhance));
  } else {
    return false;
  }
  return true;
}

}  // namespace glesam_gst
