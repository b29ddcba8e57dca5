#include "manifest_file.h"

#include <algorithm>

#include "errors.h"
#include "manifest_fields.h"
#include "text.h"

namespace glesam {
namespace {

// Reads format and version before the other fields, so that a newer version is reported as newer.
void check_header(const Json& root, const std::string& where) {
  std::string format;
  std::int64_t version = 0;
  read_object({root}, {{"format", into(format, read_string), false},
                       {"version", into(version, integer()), false}});
  if (format != kFormat) {
    bundle_error(cat(where, ": \"format\" is ", py_repr(format), ", not ", py_repr(kFormat),
                     ": not a bundle"));
  }
  if (version != kVersion) {
    const bool newer = version > kVersion;
    bundle_error(cat(where, ": manifest version ", version, ", this program reads ", kVersion, "; ",
                     newer ? "upgrade glesam-runtime" : "export the checkpoint again"));
  }
}

// Reads `requires` before the other fields: a feature may change their types, and the error should
// name the feature.
void check_requires(const Json& root, const std::string& where) {
  std::vector<std::string> required, unknown;
  read_object({root}, {{"requires", into_list(required, read_string), false}});
  for (const std::string& name : required) {
    const auto& known = kKnownFeatures;
    if (std::find(known.begin(), known.end(), name) == known.end()) unknown.push_back(py_repr(name));
  }
  if (unknown.empty()) return;
  bundle_error(cat(where, ": requires ", join(unknown, ", "),
                   ", which this program does not support; upgrade glesam-runtime"));
}

}  // namespace

Manifest parse_manifest(std::string_view raw, const std::string& where) {
  const std::string remedy = "; export the bundle again";
  Json root;
  try {
    root = parse_json(raw);
    check_header(root, where);
  } catch (const JsonError& error) {
    bundle_error(cat(where, ": not a bundle manifest (", error.what(), ")", remedy));
  } catch (const FieldError& error) {
    bundle_error(cat(where, ": not a bundle manifest (", error.what(), ")", remedy));
  }
  Manifest manifest;
  try {
    check_requires(root, where);
    manifest = read_manifest({root});
  } catch (const FieldError& error) {
    bundle_error(cat(where, ": ", error.what(), remedy));
  }
  check_consistency(manifest, where);
  return manifest;
}

}  // namespace glesam
