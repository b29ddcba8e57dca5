"""The plain export: what `torch.onnx.export` makes of the reference's modules as they are.

No fold, no graph of ours, no typing: adapters are merged by peft, Eq. 4 is written out in float32,
and the decoder takes the points of one prompt.
"""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glesam_benchmark import plain_cache
from glesam_benchmark.inputs import Inputs
from glesam_benchmark.pytorch import merge
from glesam_export.checkpoints import Checkpoint
from glesam_export.enhancer.reference import Enhancer
from glesam_export.families import named_features
from glesam_export.families.sam.reference import ReferenceDecoder
from glesam_runtime.bundle import Bundle
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.errors import CheckpointError

POINTS = ("point_coords", "point_labels")


class PlainEnhancer(nn.Module):
    """Eq. 4 around the U-Net, in the weights' dtype."""

    def __init__(self, enhancer: Enhancer) -> None:
        super().__init__()
        self.inner = enhancer

    def forward(self, image_embeddings: Tensor) -> Tensor:
        """z_L -> z_H, [1, 256, s, s]."""
        inner = self.inner
        latent = inner.gamma * image_embeddings
        noise = (1 - inner.alpha_bar) ** 0.5 * inner.eps(image_embeddings)
        z_h: Tensor = (latent - noise) / (inner.gamma * inner.alpha_bar**0.5)
        return z_h


class PlainDecoder(nn.Module):
    """A family's prompt encoder and mask decoder on the points of one prompt."""

    def __init__(self, decoder: ReferenceDecoder) -> None:
        super().__init__()
        self.inner = decoder

    def forward(
        self, features: dict[str, Tensor], point_coords: Tensor, point_labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Points [1, N, 2] with labels [1, N], 1 or 0 -> all four masks and IoU predictions."""
        sparse, dense = self.inner.prompt_encoder(
            points=(point_coords, point_labels), boxes=None, masks=None
        )
        return self.inner.predict_masks(features, sparse, dense, repeat=False)


@torch.no_grad()
def export_plain(checkpoint: Checkpoint, bundle: Bundle, given: Inputs, folder: Path) -> None:
    """Write encoder.onnx, enhancer.onnx and decoder.onnx.

    Args:
        checkpoint: the weights the bundle was exported from.
        bundle: says which those are.
        given: what to trace with.
        folder: as `plain_cache` keeps it.

    Raises:
        CheckpointError: the checkpoint is not the bundle's.
    """
    provenance = bundle.manifest.provenance
    ours = checkpoint.origin, {source.sha256 for source in checkpoint.sources()}
    if ours != (provenance.weights, {source.sha256 for source in provenance.sources}):
        raise CheckpointError(
            f"{bundle.path}: was exported from other weights ({provenance.weights}) than those "
            f"given ({checkpoint.origin}); pass the same weight options"
        )
    plain_cache.begin(folder)
    image = torch.from_numpy(given.image)
    encoder = checkpoint.encoder()
    features = named_features(encoder(image))
    _write(encoder, (image,), ["image"], [*features], folder / "encoder.onnx")
    del encoder
    gc.collect()
    enhancer = checkpoint.enhancer()
    merge(enhancer)
    z_l = features[EMBEDDINGS]
    _write(PlainEnhancer(enhancer), (z_l,), [EMBEDDINGS], ["enhanced"], folder / "enhancer.onnx")
    del enhancer
    gc.collect()
    decoder = PlainDecoder(checkpoint.decoder()).eval()
    points = tuple(torch.from_numpy(given.first[name][:, :-1]) for name in POINTS)
    _write(
        decoder,
        (features, *points),
        [*features, *POINTS],
        ["low_res_masks", "iou_predictions"],
        folder / "decoder.onnx",
    )
    plain_cache.finish(folder, bundle)


def _write(
    module: nn.Module, example: tuple[Any, ...], inputs: list[str], outputs: list[str], path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's internals
        torch.onnx.export(
            module,
            example,
            path,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
