#include <algorithm>
#include <set>

#include "errors.h"
#include "interface.h"
#include "manifest_file.h"
#include "text.h"

namespace glesam {
namespace {

// Pixels of all images of the encoder's input, which has 12 bytes per pixel. SAM's have 1024^2.
constexpr std::int64_t kMostPixels = std::int64_t{1} << 26;

[[noreturn]] void refuse(const std::string& where, std::string_view what) {
  bundle_error(cat(where, ": ", what, "; export the bundle again"));
}

// Returns the letters as Python prints a list: "['B', 'P']".
template <typename Letters>
std::string spell_axes(const Letters& letters) {
  std::vector<std::string> quoted;
  for (const char letter : letters) quoted.push_back(py_repr(std::string(1, letter)));
  return cat("[", join(quoted, ", "), "]");
}

void check_coordinates(const Coordinates& rules, const std::string& where) {
  if (rules.pixel_offset != kPixelOffset) {
    refuse(where, cat("pixel_offset must be ", general(kPixelOffset, 6)));
  }
  std::map<std::string, std::int64_t> wanted;
  std::vector<std::string> spelled;
  for (const PromptLabel& label : kPromptLabels) {
    wanted[label.name] = label.value;
    spelled.push_back(cat(label.name, " ", label.value));
  }
  if (rules.labels != wanted) refuse(where, cat("labels must be ", join(spelled, ", ")));
}

// Refuses a first resize that contradicts `requires` or the other rules of preprocessing.
void check_first_resize(const Manifest& manifest, const std::string& where) {
  const Preprocessing& rules = manifest.preprocessing;
  const auto& required = manifest.required;
  const bool named = std::find(required.begin(), required.end(), kReleasedInput) != required.end();
  const std::string feature = cat("'", kReleasedInput, "'");
  if (rules.first_size == 0) {
    if (named) refuse(where, cat(feature, " needs a 'first_resize'"));
    return;
  }
  if (!named) refuse(where, cat("'first_resize' needs ", feature, " in 'requires'"));
  if (!rules.square) refuse(where, "resize 'longest_side' contradicts 'first_resize'");
  if (rules.first_size > rules.image_size) {
    refuse(where, cat("first_resize ", rules.first_size, " is larger than image_size ",
                      rules.image_size));
  }
}

void check_profile(const StageRecord& stage, bool compiled, const std::string& where,
                   const char* name) {
  std::set<char> expected, declared;
  for (const TensorSpec& tensor : stage.inputs) {
    for (const Dimension& axis : tensor.shape) {
      if (compiled && axis.symbol != 0) expected.insert(axis.symbol);
    }
  }
  for (const auto& [axis, range] : stage.profile) declared.insert(axis);
  if (declared != expected) {
    refuse(where, cat(name, ": the axes of 'profile' are ", spell_axes(declared), ", not ",
                      spell_axes(expected)));
  }
  for (const auto& [axis, range] : stage.profile) {
    if (range.min <= range.opt && range.opt <= range.max) continue;
    refuse(where, cat(name, ": profile ", std::string(1, axis), " ", range.min, ":", range.opt, ":",
                      range.max, " is not in ascending order"));
  }
}

// Refuses a manifest whose files and engine records do not match target.engine.
void check_target(const Manifest& manifest, const std::string& where) {
  const Target& target = manifest.target;
  const bool compiled = target.engine != "onnx";
  if (compiled != target.build.has_value()) {
    refuse(where,
           cat("engine ", py_repr(target.engine), compiled ? " needs a" : " has no", " 'build'"));
  }
  const bool stripped = target.build.has_value() && target.build->stripped;
  const std::string_view ending = ".engine";
  for (const Stage name : kStages) {
    const StageRecord& stage = manifest.stages.at(name);
    const std::string& file = stage.graph.file;
    const bool is_engine = file.size() >= ending.size() &&
                           std::string_view(file).substr(file.size() - ending.size()) == ending;
    if (compiled != is_engine) {
      refuse(where, cat(py_repr(file), " is not a graph for ", py_repr(target.engine)));
    }
    if (stripped != stage.weights.has_value()) {
      refuse(where, cat(name_of(name), ": ",
                        stripped ? "a stripped engine needs" : "only a stripped engine has",
                        " 'weights'"));
    }
    check_profile(stage, compiled, where, name_of(name));
  }
}

void check_files(const Manifest& manifest, const std::string& where) {
  const std::vector<FileRef> refs = file_refs(manifest);
  for (const FileRef& ref : refs) {
    const auto times = std::count_if(refs.begin(), refs.end(),
                                     [&](const FileRef& other) { return other.file == ref.file; });
    if (times > 1 || ref.file == kManifestFile) {
      refuse(where, cat("file ", py_repr(ref.file), " is named twice"));
    }
  }
}

}  // namespace

void check_consistency(const Manifest& manifest, const std::string& where) {
  const auto& rules = manifest.preprocessing;
  const auto& masks = manifest.postprocessing;
  const std::int64_t step = manifest.model.family == "sam" ? 16 : 32;
  if (rules.image_size % step != 0) {
    refuse(where, cat("image_size ", rules.image_size, " is not a multiple of ", step));
  }
  const std::int64_t images = std::max<std::int64_t>(1, manifest.target.batch);
  const auto side = static_cast<long double>(rules.image_size);
  if (static_cast<long double>(images) * side * side > kMostPixels) {
    refuse(where, cat(images, " x ", rules.image_size, " x ", rules.image_size,
                      " pixels of input, more than ", kMostPixels, " pixels"));
  }
  if (rules.square == rules.padded) {
    refuse(where, cat("resize '", rules.square ? "square" : "longest_side", "' contradicts pad '",
                      rules.padded ? "right_bottom" : "none", "'"));
  }
  check_first_resize(manifest, where);
  if (masks.first_if_stable != masks.stability.has_value()) {
    refuse(where, cat("single_mask ",
                      masks.first_if_stable ? "'first_if_stable' needs a" : "'first' has no",
                      " 'stability'"));
  }
  check_coordinates(manifest.coordinates, where);
  for (const Stage name : kStages) {
    const auto found = manifest.stages.find(name);
    if (found == manifest.stages.end()) {
      refuse(where, cat("stage '", name_of(name), "' is missing"));
    }
    const Interface wanted =
        expected_interface(name, rules.image_size, manifest.target.batch, manifest.model.family);
    const auto compare = [&](const std::vector<TensorSpec>& declared,
                             const std::vector<TensorSpec>& contract) {
      if (declared == contract) return;
      refuse(where, cat(name_of(name), " declares ", spell(declared), ", the contract says ",
                        spell(contract)));
    };
    compare(found->second.inputs, wanted.inputs);
    compare(found->second.outputs, wanted.outputs);
  }
  check_target(manifest, where);
  check_files(manifest, where);
}

}  // namespace glesam
