#include "manifest_file.h"

#include <algorithm>

#include "errors.h"
#include "manifest_fields.h"
#include "text.h"
#include "typed_json.h"

namespace glesam {
namespace {

// Read first, so that a newer manifest is called newer and not malformed.
void check_header(const Json& root, const std::string& where) {
  std::string format, version = "0";
  read_object({root}, {{"format", [&](const Node& n) { format = read_string(n); }, false},
                       {"version",
                        [&](const Node& n) {
                          read_integer(n, std::numeric_limits<std::int64_t>::min());
                          version = n.value.text;
                        },
                        false}});
  if (format != kFormat) {
    bundle_error(cat(where, ": \"format\" is ", py_repr(format), ", not ", py_repr(kFormat),
                     ": not a bundle"));
  }
  if (version != std::to_string(kVersion)) {
    const bool newer = version.front() != '-' && version != "0";
    bundle_error(cat(where, ": manifest version ", version, ", this program reads ", kVersion, "; ",
                     newer ? "upgrade glesam-deploy" : "export the checkpoint again"));
  }
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
    manifest = read_manifest({root});
  } catch (const FieldError& error) {
    bundle_error(cat(where, ": ", error.what(), remedy));
  }
  check_consistency(manifest, where);
  return manifest;
}

}  // namespace glesam
