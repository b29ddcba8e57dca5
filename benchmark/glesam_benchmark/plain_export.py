"""Write the plain export: `torch.onnx.export` of the reference's modules as they are.

Nothing is folded, rewritten or typed. peft merges the adapters, Eq. 4 is computed in float32, and
the decoder takes the points of one prompt.
"""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glesam_benchmark import plain_graphs
from glesam_benchmark.pytorch_chain import merge_adapters
from glesam_benchmark.timing import GoldenInputs
from glesam_export.checkpoints import Checkpoint
from glesam_export.enhancer.reference import Enhancer
from glesam_export.families import named_features
from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_runtime.bundle import Bundle
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.errors import CheckpointError

POINTS = ("point_coords", "point_labels")


class PlainEnhancer(nn.Module):
    """Compute Eq. 4 around the U-Net in the dtype of the weights."""

    def __init__(self, enhancer: Enhancer) -> None:
        super().__init__()
        self.inner = enhancer

    def forward(self, image_embeddings: Tensor) -> Tensor:
        """Turn z_L into z_H, [1, 256, s, s] both."""
        inner = self.inner
        latent = inner.gamma * image_embeddings
        noise = (1 - inner.alpha_bar) ** 0.5 * inner.eps(image_embeddings)
        z_h: Tensor = (latent - noise) / (inner.gamma * inner.alpha_bar**0.5)
        return z_h


class PlainDecoder(nn.Module):
    """Run SAM's prompt encoder and mask decoder on the points of one prompt."""

    def __init__(self, decoder: ReferenceDecoder) -> None:
        super().__init__()
        self.inner = decoder

    def forward(
        self, features: dict[str, Tensor], point_coords: Tensor, point_labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Turn points [1, N, 2] with labels [1, N] (1 or 0) into all four masks and IoU scores."""
        sparse, dense = self.inner.prompt_encoder(
            points=(point_coords, point_labels), boxes=None, masks=None
        )
        return self.inner.predict_masks(features, sparse, dense, repeat=False)


@torch.no_grad()
def export_plain(checkpoint: Checkpoint, bundle: Bundle, given: GoldenInputs, folder: Path) -> None:
    """Write encoder.onnx, enhancer.onnx and decoder.onnx.

    Args:
        checkpoint: the weights that the bundle was exported from.
        bundle: names those weights.
        given: the inputs to trace with.
        folder: the folder that `plain_graphs.holds_export` checks.

    Raises:
        CheckpointError: the checkpoint does not hold the bundle's weights.
    """
    provenance = bundle.manifest.provenance
    ours = checkpoint.origin, {source.sha256 for source in checkpoint.sources()}
    if ours != (provenance.weights, {source.sha256 for source in provenance.sources}):
        raise CheckpointError(
            f"{bundle.path}: exported from {provenance.weights}, but the weight options give "
            f"{checkpoint.origin}; pass the same weight options"
        )
    plain_graphs.begin_export(folder)
    image = torch.from_numpy(given.image)
    encoder = checkpoint.encoder()
    features = named_features(encoder(image))
    _write(encoder, (image,), ["image"], [*features], folder / "encoder.onnx")
    del encoder
    gc.collect()
    enhancer = checkpoint.enhancer()
    merge_adapters(enhancer)
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
    plain_graphs.finish_export(folder, bundle)


def _write(
    module: nn.Module, example: tuple[Any, ...], inputs: list[str], outputs: list[str], path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they concern the exporter's internals
        torch.onnx.export(
            module,
            example,
            path,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
