#include "bundle.h"

#include <set>

#include "bytes.h"
#include "errors.h"
#include "manifest_file.h"
#include "onnx_files.h"
#include "sha256.h"
#include "text.h"

namespace glesam {
namespace {

namespace fs = std::filesystem;

// Prompts of a golden file, which are decoded together. Exports write up to 3.
constexpr std::int64_t kMostGoldenPrompts = 64;

// Returns the path as Python's Path prints it: without doubled or trailing separators and ".".
fs::path spelled(const std::string& folder) {
  fs::path path;
  for (const fs::path& part : path_of(folder)) {
    if (!part.empty() && part != ".") path /= part;
  }
  return path.empty() ? fs::path(".") : path;
}

void verify_file(const fs::path& folder, const FileRef& ref) {
  const fs::path path = folder / path_of(ref.file);
  const std::string where = utf8_of(path);
  try {
    // The file may be a link, as in a Hugging Face cache: its bytes are checked, wherever they are.
    if (!fs::is_regular_file(fs::status(path))) {
      bundle_error(cat(where, ": missing from the bundle; copy or export the bundle again"));
    }
    const auto size = fs::file_size(path);
    if (size != static_cast<std::uintmax_t>(ref.bytes)) {
      bundle_error(cat(where, ": ", size, " bytes, the manifest says ", ref.bytes,
                       "; copy or export the bundle again"));
    }
    if (sha256_of(path) != ref.sha256) {
      bundle_error(cat(
          where, ": altered, its sha256 is not the manifest's; copy or export the bundle again"));
    }
  } catch (const ReadError& error) {
    bundle_error(cat(where, ": cannot be read (", error.what(), "); check its permissions"));
  } catch (const fs::filesystem_error& error) {
    bundle_error(
        cat(where, ": cannot be read (", error.code().message(), "); check its permissions"));
  }
}

// Refuses a graph that takes weights from anywhere but its declared data file.
void verify_external_data(const fs::path& folder, const StageRecord& stage) {
  const fs::path path = folder / (stage.weights ? *stage.weights : stage.graph).file;
  if (path.extension() == ".engine") return;
  for (const std::string& location : external_data_locations(path)) {
    if (stage.data && location == stage.data->file) continue;
    bundle_error(cat(utf8_of(path), ": takes weights from ", py_repr(location),
                     ", the manifest declares ", stage.data ? stage.data->file : "no data file",
                     "; do not use it, export the bundle again"));
  }
}

// Refuses prompts that take far more memory than the golden file.
void check_golden_prompts(const StoredTensors& tensors, const std::string& where,
                          const Limits& limits) {
  const auto labels = tensors.find("point_labels");
  if (labels == tensors.end() || labels->second.shape.size() != 2) return;
  const std::int64_t prompts = labels->second.shape[0], points = labels->second.shape[1];
  if (prompts > kMostGoldenPrompts) {
    bundle_error(cat(where, ": holds ", prompts, " prompts, more than ", kMostGoldenPrompts,
                     "; export the bundle again"));
  }
  check_limit(kPoints, limits, static_cast<std::uint64_t>(points),
              cat(where, ": ", points, " points in one prompt"));
}

}  // namespace

fs::path Bundle::graph_path(Stage stage) const {
  return path / manifest.stages.at(stage).graph.file;
}

Bundle open_bundle(const std::string& name, const Limits& limits) {
  const fs::path folder = spelled(name);
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    const bool exists = fs::exists(folder, error);
    bundle_error(cat(utf8_of(folder), ": ",
                     exists ? "is a file, not a bundle folder" : "no such bundle folder",
                     "; check the path or export a bundle with glesam-export"));
  }
  const fs::path manifest_path = folder / kManifestFile;
  if (!fs::is_regular_file(manifest_path, error)) {
    bundle_error(cat(utf8_of(folder), ": not a bundle, because it has no ", kManifestFile,
                     "; check the path or export a bundle with glesam-export"));
  }
  std::string raw;
  try {
    const auto size = fs::file_size(manifest_path, error);
    if (!error) {
      check_limit(kJsonBytes, limits, size, cat(utf8_of(manifest_path), ": ", size, " bytes"));
    }
    raw = read_file(manifest_path);
  } catch (const ReadError& reason) {
    bundle_error(cat(utf8_of(manifest_path), ": cannot be read (", reason.what(),
                     "); check its permissions"));
  }
  Bundle bundle{folder, parse_manifest(raw, utf8_of(manifest_path)), {}};
  for (const FileRef& ref : file_refs(bundle.manifest)) verify_file(folder, ref);
  for (const auto& [stage, record] : bundle.manifest.stages) verify_external_data(folder, record);
  Sha256 digest;
  digest.update(raw.data(), raw.size());
  bundle.sha256 = digest.hex();
  return bundle;
}

StoredTensors load_golden(const Bundle& bundle, const Limits& limits) {
  const std::string where = utf8_of(bundle.golden_path());
  StoredTensors tensors;
  try {
    Bytes file(bundle.golden_path());
    check_limit(kGoldenBytes, limits, file.size(), cat(where, ": ", file.size(), " bytes"));
    tensors = read_safetensors(file, largest(kJsonBytes, limits));
  } catch (const std::runtime_error& error) {
    bundle_error(cat(where, ": not a golden file (", error.what(), "); export the bundle again"));
  }
  check_golden_prompts(tensors, where, limits);
  std::set<std::string> wanted{"image",          "image_embeddings", "enhanced_embeddings",
                               "point_coords",   "point_labels",     "mask_input",
                               "has_mask_input", "low_res_masks",    "iou_predictions"};
  for (const TensorSpec& spec : bundle.manifest.stages.at(Stage::encoder).outputs) {
    wanted.insert(spec.name);
  }
  std::vector<std::string> missing;
  for (const std::string& name : wanted) {
    if (tensors.find(name) == tensors.end()) missing.push_back(name);
  }
  if (!missing.empty())
    bundle_error(cat(where, ": lacks ", join(missing, ", "), "; export the bundle again"));
  return tensors;
}

}  // namespace glesam
