// The properties of glesamsegment.
#pragma once

#include <glib-object.h>

#include <string>

namespace glesam_gst {

enum class Enhance { automatic = 0, always = 1, never = 2 };

// The values of the properties. docs/gstreamer.md describes them.
struct Settings {
  std::string bundle, backend = "auto", device, engine_library, points, boxes;
  int threads = 0;
  Enhance enhance = Enhance::automatic;
  bool follow = false, overlay = false;
  double min_score = 0, min_stability = 0;
};

// Declares the properties.
void install_properties(GObjectClass* type);

// Returns whether a property is a prompt.
bool is_prompt(guint property);

// Return false if there is no such property.
bool set_setting(Settings& settings, guint property, const GValue* value);
bool get_setting(const Settings& settings, guint property, GValue* value);

}  // namespace glesam_gst
