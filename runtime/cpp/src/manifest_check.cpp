#include <algorithm>

#include "errors.h"
#include "interface.h"
#include "manifest_file.h"
#include "text.h"

namespace glesam {
namespace {

// Whether it is a file name that cannot leave its folder. Its characters have been checked; a last
// line break has not.
bool is_plain_name(const std::string& name) { return name.find('\n') == std::string::npos; }

void check_files(const Manifest& manifest, const std::string& where) {
  const std::vector<FileRef> refs = file_refs(manifest);
  for (const FileRef& ref : refs) {
    if (!is_plain_name(ref.file)) {
      bundle_error(cat(where, ": ", py_repr(ref.file), " is not a plain file name"));
    }
    const auto times = std::count_if(refs.begin(), refs.end(),
                                     [&](const FileRef& other) { return other.file == ref.file; });
    if (times > 1 || ref.file == kManifestFile) {
      bundle_error(cat(where, ": file ", py_repr(ref.file), " is named twice"));
    }
  }
}

}  // namespace

void check_consistency(const Manifest& manifest, const std::string& where) {
  const auto& rules = manifest.preprocessing;
  const auto& masks = manifest.postprocessing;
  const std::int64_t step = manifest.model.family == "sam" ? 16 : 32;
  if (rules.image_size % step != 0) {
    bundle_error(cat(where, ": image_size ", rules.image_size, " is not a multiple of ", step));
  }
  if (rules.square == rules.padded) {
    bundle_error(cat(where, ": resize '", rules.square ? "square" : "longest_side",
                     "' contradicts pad '", rules.padded ? "right_bottom" : "none", "'"));
  }
  if (masks.first_if_stable != masks.stability.has_value()) {
    bundle_error(cat(where, ": single_mask '", masks.first_if_stable ? "first_if_stable" : "first",
                     "' contradicts stability"));
  }
  for (const Stage name : kStages) {
    const auto found = manifest.stages.find(name);
    if (found == manifest.stages.end()) {
      bundle_error(cat(where, ": stage '", name_of(name), "' is missing; export the bundle again"));
    }
    const Interface wanted =
        expected_interface(name, rules.image_size, manifest.target.batch, manifest.model.family);
    const auto compare = [&](const std::vector<TensorSpec>& declared,
                             const std::vector<TensorSpec>& contract) {
      if (declared == contract) return;
      bundle_error(cat(where, ": ", name_of(name), " declares ", spell(declared),
                       ", the contract says ", spell(contract)));
    };
    compare(found->second.inputs, wanted.inputs);
    compare(found->second.outputs, wanted.outputs);
  }
  check_files(manifest, where);
}

}  // namespace glesam
