#include "chain.h"

#include <algorithm>

#include "errors.h"

namespace glesam {
namespace {

// Runs a stage that has one input, on one image or on as many as its graph takes. Zeros fill a static
// batch that is larger than one image.
Tensors of_images(Engine& engine, const Manifest& manifest, Stage stage, const Tensor& value) {
  const std::string& name = manifest.stages.at(stage).inputs.front().name;
  const std::int64_t batch = manifest.target.batch;  // 0: any
  if (batch == 0 || value.shape.at(0) == batch) return engine.run(stage, {{name, value}});
  const Tensor one = engine.to_host(value);
  Shape shape = one.shape;
  shape[0] = batch;
  std::vector<float> filled(elements(shape));
  std::copy_n(one.host, elements(one.shape), filled.begin());
  Tensors outputs = engine.run(stage, {{name, host_tensor(shape, std::move(filled))}});
  for (auto& [output, tensor] : outputs) tensor = row_of(tensor, 0);
  return outputs;
}

std::vector<float> copied(Engine& engine, const Tensor& tensor) {
  const Tensor host = engine.to_host(tensor);
  return {host.host, host.host + elements(host.shape)};
}

}  // namespace

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
