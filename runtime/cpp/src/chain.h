// The chain of stages, one function for each: image -> z_L -> z_H -> low-resolution logits.
//
// The encoder's outputs pass from stage to stage by name. SAM 2's high-resolution features are among
// them. The enhancer does not use them, and they stay where the engine computed them.
#pragma once

#include "engine.h"
#include "masks.h"

namespace glesam {

inline constexpr const char* kEmbeddings = "image_embeddings";

// Returns how many rows a run of encoder and enhancer on `count` images has: the static batch of the
// graphs, or the minimum of an engine's profile if that is more.
std::int64_t rows_for(const Manifest& manifest, std::int64_t count);

// Runs the encoder: image [N, 3, S, S], normalised and padded -> features of N images. Zeros
// fill the rows of rows_for(manifest, N) that are more.
Tensors encode(Engine& engine, const Manifest& manifest, const Tensor& image);

// Runs the enhancer on the features of N images: z_H replaces z_L as the embeddings, and the other
// features stay the same.
Tensors enhance(Engine& engine, const Manifest& manifest, const Tensors& features);

// Runs the decoder on B prompts, given the features of one image and the result of
// prompt_tensors().
Decoded decode(Engine& engine, const Tensors& features, const Tensors& prompts);

}  // namespace glesam
