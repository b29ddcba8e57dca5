"""Runs the unfolded PyTorch reference on the verification cases and keeps what it gave."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from glesam_export.cases import Case
from glesam_export.checkpoints import Checkpoint
from glesam_export.reference import named_features
from glesam_runtime.chain import EMBEDDINGS

T = TypeVar("T")

Step = Callable[[str], AbstractContextManager[None]]
"""Announces a piece of long work while it runs."""

Masks = tuple[NDArray[np.float32], NDArray[np.float32]]
"""low_res_masks and iou_predictions of one decoder call."""


@dataclass
class Outputs:
    """What one side computed for one case, filled in stage by stage.

    Attributes:
        z_l: [1, 256, s, s] float32.
        high_res: the encoder's further outputs by name; SAM has none.
        eps: [1, 256, s, s], the U-Net's own answer; of a bundle, solved from Eq. 4.
        z_h: [1, 256, s, s], float64 from the reference.
        decoded: by kind of prompt, on the reference's z_H.
        chained: by kind of prompt, each stage fed what this side's own stage before it gave.
    """

    z_l: NDArray[np.float32] | None = None
    high_res: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    eps: NDArray[np.float64] | None = None
    z_h: NDArray[np.float64] | None = None
    decoded: dict[str, Masks] = field(default_factory=dict)
    chained: dict[str, Masks] = field(default_factory=dict)


@torch.no_grad()
def record_reference(checkpoint: Checkpoint, cases: Sequence[Case], step: Step) -> list[Outputs]:
    """Run the unfolded reference on every case."""
    outputs = [Outputs() for _ in cases]
    with step("reference encoder"):
        encoder = checkpoint.encoder()
        for case, out in zip(cases, outputs, strict=True):
            encoded = named_features(encoder(torch.from_numpy(case.prepared.tensor)))
            out.z_l = encoded.pop(EMBEDDINGS).numpy()
            out.high_res = {name: feature.numpy() for name, feature in encoded.items()}
        del encoder
        gc.collect()
    with step("reference enhancer"):
        enhancer = checkpoint.enhancer()
        for out in outputs:
            z_l = torch.from_numpy(known(out.z_l))
            eps = enhancer.eps(z_l)
            out.eps = eps.double().numpy()
            out.z_h = enhancer.step(z_l, eps).numpy()
        del enhancer
        gc.collect()
    with step("reference decoder"):
        decoder = checkpoint.decoder()
        for case, out in zip(cases, outputs, strict=True):
            features = {name: torch.from_numpy(value) for name, value in out.high_res.items()}
            features[EMBEDDINGS] = torch.from_numpy(known(out.z_h)).float()
            for kind, prompts in case.prompts.items():
                tensors = {name: torch.from_numpy(value) for name, value in prompts.items()}
                low_res, iou = decoder(**features, **tensors)
                out.decoded[kind] = (low_res.numpy(), iou.numpy())
        del decoder
        gc.collect()
    return outputs


def known(value: T | None) -> T:
    """A value that an earlier stage has filled in."""
    assert value is not None, "stages run in order"
    return value
