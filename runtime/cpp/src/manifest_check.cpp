#include <algorithm>
#include <set>

#include "errors.h"
#include "interface.h"
#include "manifest_file.h"
#include "text.h"

namespace glesam {
namespace {

// Whether it is a file name that cannot leave its folder. Its characters have been checked; a last
// line break has not.
bool is_plain_name(const std::string& name) { return name.find('\n') == std::string::npos; }

// Python's list of the letters: "['B', 'P']".
template <typename Letters>
std::string spell_axes(const Letters& letters) {
  std::vector<std::string> quoted;
  for (const char letter : letters) quoted.push_back(py_repr(std::string(1, letter)));
  return cat("[", join(quoted, ", "), "]");
}

void check_profile(const StageRecord& stage, bool compiled, const std::string& where,
                   const char* name) {
  std::set<char> free, declared;
  for (const TensorSpec& tensor : stage.inputs) {
    for (const Dimension& axis : tensor.shape) {
      if (axis.symbol != 0) free.insert(axis.symbol);
    }
  }
  for (const auto& [axis, range] : stage.profile) declared.insert(axis);
  if (declared != (compiled ? free : std::set<char>{})) {
    bundle_error(
        cat(where, ": ", name, ": profile of ", spell_axes(declared), ", not ", spell_axes(free)));
  }
  for (const auto& [axis, range] : stage.profile) {
    if (range.min <= range.opt && range.opt <= range.max) continue;
    bundle_error(cat(where, ": ", name, ": profile ", std::string(1, axis), " ", range.min, ":",
                     range.opt, ":", range.max, " is not in order"));
  }
}

// Engines that do not say how they were built, and graphs that say they are engines.
void check_target(const Manifest& manifest, const std::string& where) {
  const Target& target = manifest.target;
  const bool compiled = target.engine != "onnx";
  if (compiled != target.build.has_value()) {
    bundle_error(cat(where, ": engine ", py_repr(target.engine), " contradicts its 'build'"));
  }
  const bool stripped = target.build.has_value() && target.build->stripped;
  const std::string_view ending = ".engine";
  for (const Stage name : kStages) {
    const StageRecord& stage = manifest.stages.at(name);
    const std::string& file = stage.graph.file;
    const bool is_engine = file.size() >= ending.size() &&
                           std::string_view(file).substr(file.size() - ending.size()) == ending;
    if (compiled != is_engine) {
      bundle_error(cat(where, ": ", py_repr(file), " is not a graph for ", py_repr(target.engine)));
    }
    if (stripped != stage.weights.has_value()) {
      bundle_error(cat(where, ": ", name_of(name), ": 'weights' contradicts 'stripped'"));
    }
    check_profile(stage, compiled, where, name_of(name));
  }
}

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
  check_target(manifest, where);
  check_files(manifest, where);
}

}  // namespace glesam
