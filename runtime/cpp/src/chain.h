// The chain itself, a function a stage: image -> z_L -> z_H -> low-resolution logits.
//
// What flows between the stages is the encoder's outputs by name. SAM 2's high-resolution features
// are among them: they pass by the enhancer and stay where the engine left them.
#pragma once

#include "engine.h"
#include "masks.h"

namespace glesam {

inline constexpr const char* kEmbeddings = "image_embeddings";

// Runs the encoder: image [1, 3, S, S], normalised and padded -> its features.
Tensors encode(Engine& engine, const Manifest& manifest, const Tensor& image);

// Runs the enhancer: z_L -> z_H in the embeddings' place, every other feature as it is.
Tensors enhance(Engine& engine, const Manifest& manifest, const Tensors& features);

// Runs the decoder on B prompts: the features of one image and the tensors of prompt_tensors().
Decoded decode(Engine& engine, const Tensors& features, const Tensors& prompts);

}  // namespace glesam
