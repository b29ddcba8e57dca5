#include "interface.h"

#include "text.h"

namespace glesam {

bool operator==(const Dimension& a, const Dimension& b) {
  return a.size == b.size && a.symbol == b.symbol;
}

bool operator==(const TensorSpec& a, const TensorSpec& b) {
  return a.name == b.name && a.shape == b.shape;
}

std::vector<FileRef> file_refs(const Manifest& manifest) {
  std::vector<FileRef> refs, further;
  for (const auto& [stage, record] : manifest.stages) {
    refs.push_back(record.graph);
    if (record.weights) further.push_back(*record.weights);
    if (record.data) further.push_back(*record.data);
  }
  refs.insert(refs.end(), further.begin(), further.end());
  refs.push_back(manifest.golden);
  return refs;
}

Interface expected_interface(Stage stage, std::int64_t image_size, std::int64_t batch,
                             const std::string& family) {
  const auto size = [](std::int64_t value) { return Dimension{value, 0}; };
  const Dimension one = size(1), b{0, 'B'}, p{0, 'P'};
  const Dimension n = batch == 0 ? Dimension{0, 'N'} : size(batch);
  const Dimension latent = size(image_size / 16), low_res = size(image_size / 4);
  const auto embeddings = [&](const char* name, Dimension images) {
    return TensorSpec{name, {images, size(256), latent, latent}};
  };
  const auto with_high_res = [&](std::vector<TensorSpec> specs, Dimension images) {
    if (family == "sam2") {
      const Dimension eighth = size(image_size / 8);
      specs.push_back({"high_res_feats_0", {images, size(32), low_res, low_res}});
      specs.push_back({"high_res_feats_1", {images, size(64), eighth, eighth}});
    }
    return specs;
  };
  switch (stage) {
    case Stage::encoder:
      return {{{"image", {n, size(3), size(image_size), size(image_size)}}},
              with_high_res({embeddings("image_embeddings", n)}, n)};
    case Stage::enhancer:
      return {{embeddings("image_embeddings", n)}, {embeddings("enhanced_embeddings", n)}};
    case Stage::decoder: break;
  }
  auto inputs = with_high_res({embeddings("image_embeddings", one)}, one);
  inputs.push_back({"point_coords", {b, p, size(2)}});
  inputs.push_back({"point_labels", {b, p}});
  inputs.push_back({"mask_input", {b, one, low_res, low_res}});
  inputs.push_back({"has_mask_input", {one}});
  return {inputs,
          {{"low_res_masks", {b, size(4), low_res, low_res}}, {"iou_predictions", {b, size(4)}}}};
}

std::string spell(const std::vector<Dimension>& shape, const char* between) {
  std::vector<std::string> parts;
  for (const Dimension& axis : shape) {
    parts.push_back(axis.symbol != 0 ? std::string(1, axis.symbol) : std::to_string(axis.size));
  }
  return join(parts, between);
}

std::string spell(const std::vector<TensorSpec>& specs) {
  std::vector<std::string> parts;
  for (const TensorSpec& spec : specs) parts.push_back(cat(spec.name, "[", spell(spec.shape), "]"));
  return join(parts, ", ");
}

}  // namespace glesam
