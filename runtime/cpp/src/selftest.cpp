#include "selftest.h"

#include <algorithm>
#include <limits>

#include "chain.h"
#include "compare.h"
#include "errors.h"
#include "preprocess.h"
#include "text.h"

namespace glesam {
namespace {

constexpr std::size_t kFirst = 4;

// Reads the tensors of a golden file and refuses wrong types and shapes.
class Golden {
 public:
  Golden(const Bundle& bundle, const Limits& limits)
      : where_(utf8_of(bundle.golden_path())), tensors_(load_golden(bundle, limits)) {}

  Tensor tensor(const std::string& name) const {
    const StoredTensor& stored = tensors_.at(name);
    try {
      return host_tensor(stored.shape, stored.floats());
    } catch (const std::runtime_error& error) {
      bundle_error(cat(where_, ": ", name, ": ", error.what(), "; export again"));
    }
  }

  Image image() const {
    const StoredTensor& stored = tensors_.at("image");
    const Shape& shape = stored.shape;
    constexpr std::int64_t kMost = std::numeric_limits<int>::max();
    if (stored.dtype != "U8" || shape.size() != 3 || shape[2] != 3 || shape[0] > kMost ||
        shape[1] > kMost) {
      bundle_error(cat(where_, ": image is not uint8 [H, W, 3]; export again"));
    }
    return {stored.bytes.data(), static_cast<int>(shape[1]), static_cast<int>(shape[0]), 0};
  }

  [[noreturn]] void refuse(const std::string& name) const {
    bundle_error(cat(where_, ": ", name, " does not have the contract's shape; export again"));
  }

 private:
  std::string where_;
  StoredTensors tensors_;
};

std::vector<float> values(Engine& engine, const Tensor& tensor) {
  const Tensor host = engine.to_host(tensor);
  return {host.host, host.host + elements(host.shape)};
}

OutputError judge(const char* stage, const std::string& output, const std::vector<float>& actual,
                  const Tensor& golden, const Golden& file) {
  const std::vector<float> expected(golden.host, golden.host + elements(golden.shape));
  if (actual.size() != expected.size()) file.refuse(output);
  const auto head = [](const std::vector<float>& v) {
    return std::vector<float>(v.begin(),
                              v.begin() + static_cast<std::ptrdiff_t>(std::min(kFirst, v.size())));
  };
  return {stage,
          output,
          head(actual),
          head(expected),
          relative_l2(actual, expected),
          max_abs(actual, expected)};
}

void compare_masks(const Decoded& whole, const std::vector<float>& expected,
                   const Upscaler& upscaler, std::size_t pixels, Selftest& result) {
  const std::size_t count = whole.batch * whole.masks, step = whole.side * whole.side;
  std::vector<std::uint8_t> mine(pixels), theirs(pixels);
  result.mask_iou_worst = 1;
  for (std::size_t i = 0; i < count; ++i) {
    upscaler.binarize(whole.low_res.data() + i * step, {mine.data()});
    upscaler.binarize(expected.data() + i * step, {theirs.data()});
    const double iou = mask_iou(mine, theirs);
    result.mask_iou_mean += iou / static_cast<double>(count);
    result.mask_iou_worst = std::min(result.mask_iou_worst, iou);
  }
}

void judge_by_gate(const AccuracyGate& gate, Selftest& result) {
  for (const OutputError& error : result.outputs) {
    if (gate.stage_relative_l2 && !(error.relative_l2 <= *gate.stage_relative_l2)) {
      result.failures.push_back(cat(error.stage, " ", error.output, ": relative L2 ",
                                    general(error.relative_l2, 3), " exceeds ",
                                    general(*gate.stage_relative_l2)));
    }
  }
  const auto judge_iou = [&](const char* word, double value, std::optional<double> limit) {
    if (limit && !(value >= *limit)) {
      result.failures.push_back(
          cat(word, " mask IoU ", fixed(value, 5), " is below ", general(*limit)));
    }
  };
  judge_iou("mean", result.mask_iou_mean, gate.mask_iou_mean);
  judge_iou("worst", result.mask_iou_worst, gate.mask_iou_worst);
}

}  // namespace

Selftest run_selftest(const Bundle& bundle, Engine& engine, const Limits& limits) {
  const Manifest& manifest = bundle.manifest;
  const Golden golden(bundle, limits);
  const Preprocessed prepared =
      preprocess(frame_of(golden.image()), manifest.preprocessing, limits);
  const std::int64_t size = manifest.preprocessing.image_size;
  Tensors given, prompts;
  for (const TensorSpec& spec : manifest.stages.at(Stage::encoder).outputs) {
    given[spec.name] = golden.tensor(spec.name);
  }
  for (const char* name : {"point_coords", "point_labels", "mask_input", "has_mask_input"}) {
    prompts[name] = golden.tensor(name);
  }
  const Tensor masks = golden.tensor("low_res_masks"), iou = golden.tensor("iou_predictions");
  const Tensor enhanced_golden = golden.tensor("enhanced_embeddings");
  const Shape& coords = prompts["point_coords"].shape;
  if (coords.size() != 3) golden.refuse("point_coords");
  if (prompts["mask_input"].shape != Shape{coords[0], 1, size / 4, size / 4}) {
    golden.refuse("mask_input");
  }

  Selftest result;
  const Tensors encoded =
      encode(engine, manifest, host_tensor({1, 3, size, size}, prepared.tensor));
  for (const TensorSpec& spec : manifest.stages.at(Stage::encoder).outputs) {
    result.outputs.push_back(judge("encoder", spec.name, values(engine, encoded.at(spec.name)),
                                   given[spec.name], golden));
  }
  const Tensors enhanced = enhance(engine, manifest, given);
  result.outputs.push_back(judge("enhancer", "enhanced_embeddings",
                                 values(engine, enhanced.at(kEmbeddings)), enhanced_golden,
                                 golden));
  Tensors reference = given;
  reference[kEmbeddings] = enhanced_golden;
  const Decoded decoded = decode(engine, reference, prompts);
  result.outputs.push_back(judge("decoder", "low_res_masks", decoded.low_res, masks, golden));
  result.outputs.push_back(judge("decoder", "iou_predictions", decoded.iou, iou, golden));

  const Decoded whole = decode(engine, enhance(engine, manifest, encoded), prompts);
  const Size original = prepared.geometry.original;
  compare_masks(whole, {masks.host, masks.host + elements(masks.shape)},
                Upscaler(prepared.geometry, manifest.postprocessing),
                elements({original.height, original.width}), result);
  judge_by_gate(accuracy_gate_for(manifest), result);
  return result;
}

}  // namespace glesam
