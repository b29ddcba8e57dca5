"""Wraps a family's decoder so that one call takes prompts of several images.

The contract's feature "image_index": features [I, ...] of I images, and for each of B prompts the
number of its image. The wrapped decoder broadcasts the features of one image over its prompts. Here
it gets each prompt's own features instead, and computes the same from there on: every prompt keeps
its own row in all of its layers, so its result does not depend on the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glesam_export.graphs import Graph


class IndexedDecoder(Graph):
    """Computes four masks and scores for each of B prompts, each on one of I images.

    Args:
        decoder: a decoder of one image, typed by `precision.cast_graph`.
    """

    variadic = True

    def __init__(self, decoder: Graph) -> None:
        super().__init__()
        self.decoder = decoder
        self.dtype = decoder.dtype

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits [B, 4, S/4, S/4] and IoU [B, 4].

        Args:
            inputs: the features [I, ...] (SAM one, SAM 2 three), the four prompt inputs, and
                `image_index` [B], float32 with whole numbers from 0 to I - 1.
        """
        *features, coords, labels, masks, has_mask, image_index = inputs
        index = image_index.to(torch.int64)
        # Selected in the decoder's type, because a copy of half the size is enough.
        chosen = [each.to(self.dtype).index_select(0, index) for each in features]
        result: tuple[Tensor, Tensor] = self.decoder(*chosen, coords, labels, masks, has_mask)
        return result
