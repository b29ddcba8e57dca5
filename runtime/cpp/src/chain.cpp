#include "chain.h"

#include <algorithm>

#include "errors.h"

namespace glesam {
namespace {

// Runs a stage that has one input on N images.
Tensors of_images(Engine& engine, const Manifest& manifest, Stage stage, const Tensor& value) {
  const std::string& name = manifest.stages.at(stage).inputs.front().name;
  const std::int64_t count = value.shape.at(0), rows = rows_for(manifest, count);
  if (rows == count) return engine.run(stage, {{name, value}});
  const Tensor given = engine.to_host(value);
  Shape shape = given.shape;
  shape[0] = rows;
  std::vector<float> filled(elements(shape));
  std::copy_n(given.host, elements(given.shape), filled.begin());
  Tensors outputs = engine.run(stage, {{name, host_tensor(shape, std::move(filled))}});
  for (auto& [output, tensor] : outputs) tensor.shape.at(0) = count;  // the first in memory
  return outputs;
}

std::vector<float> copied(Engine& engine, const Tensor& tensor) {
  const Tensor host = engine.to_host(tensor);
  return {host.host, host.host + elements(host.shape)};
}

}  // namespace

std::int64_t rows_for(const Manifest& manifest, std::int64_t count) {
  if (manifest.target.batch != 0) return std::max(manifest.target.batch, count);
  for (const Stage stage : {Stage::encoder, Stage::enhancer}) {
    const auto& profile = manifest.stages.at(stage).profile;
    if (const auto range = profile.find('N'); range != profile.end()) {
      count = std::max(count, range->second.min);
    }
  }
  return count;
}

Tensors encode(Engine& engine, const Manifest& manifest, const Tensor& image) {
  return of_images(engine, manifest, Stage::encoder, image);
}

Tensors enhance(Engine& engine, const Manifest& manifest, const Tensors& features) {
  Tensors enhanced = features;
  enhanced[kEmbeddings] = of_images(engine, manifest, Stage::enhancer, features.at(kEmbeddings))
                              .at("enhanced_embeddings");
  return enhanced;
}

Decoded decode(Engine& engine, const Tensors& features, const Tensors& prompts) {
  Tensors inputs = features;
  inputs.insert(prompts.begin(), prompts.end());
  const Tensors outputs = engine.run(Stage::decoder, inputs);
  const Tensor& masks = outputs.at("low_res_masks");
  const Tensor& iou = outputs.at("iou_predictions");
  // Some engines know the sizes of dynamic axes only after a run, and the code below relies on them.
  const std::int64_t batch = prompts.at("point_coords").shape.at(0);
  const std::int64_t side = prompts.at("mask_input").shape.at(2);
  if (masks.shape != Shape{batch, 4, side, side} || iou.shape != Shape{batch, 4}) {
    backend_error(
        "the decoder's outputs do not have the contract's shapes; export the bundle again");
  }
  return {static_cast<std::size_t>(batch), 4, static_cast<std::size_t>(side), copied(engine, masks),
          copied(engine, iou)};
}

}  // namespace glesam
