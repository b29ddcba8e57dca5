"""Builds the enhancer of several timesteps as one graph with a `level` input.

The weights serve all timesteps. What depends on the timestep are the biases of the ResNet blocks'
first convolutions and the two factors of Eq. 4: tables with a row for each level, from which the
graph selects the row of each image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from glesam_export.enhancer.graph import EnhancerGraph
from glesam_runtime.manifest import TimestepLevel


class LeveledEnhancerGraph(EnhancerGraph):
    """Maps `image_embeddings` z_L and `level` to `enhanced_embeddings` z_H.

    Both factors of Eq. 4 and the last addition are float32 in every precision.

    Args:
        folded: what `fold.fold_levels` returns. It is used up: its layers are taken over.
        gamma: adaption weight.
        levels: the timesteps and their abar_T, in the order of the levels.
    """

    def __init__(
        self, folded: UNet2DConditionModel, gamma: float, levels: Sequence[TimestepLevel]
    ) -> None:
        super().__init__(folded, levels[0].alpha_bar)
        bars = [level.alpha_bar for level in levels]
        # Plain numbers: a cast to half precision changes buffers.
        self.factors = [(bar**-0.5, -((1 - bar) ** 0.5) / (gamma * bar**0.5)) for bar in bars]

    def forward(self, image_embeddings: Tensor, level: Tensor) -> Tensor:  # type: ignore[override]
        """Compute z_L / sqrt(abar_T) - k eps for each image.

        Args:
            image_embeddings: z_L, [N, 256, s, s].
            level: index [N] of each image's timestep, whole numbers in the type of z_L.
        """
        index = level.to(torch.int64)
        factors = torch.tensor(self.factors, dtype=image_embeddings.dtype).index_select(0, index)
        latent_scale, minus_k = factors[:, :, None, None, None].unbind(1)
        eps = self.correction(image_embeddings, index).to(image_embeddings.dtype)
        return image_embeddings * latent_scale + eps * minus_k
