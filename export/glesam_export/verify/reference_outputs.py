"""Runs the unfolded PyTorch reference on the verification cases and keeps its outputs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from glesam_export.checkpoints import Checkpoint
from glesam_export.families import named_features
from glesam_export.verify.cases import Case
from glesam_runtime.chain import EMBEDDINGS

T = TypeVar("T")

Step = Callable[[str], AbstractContextManager[None]]
"""A context manager that reports a long step while it runs."""

Masks = tuple[NDArray[np.float32], NDArray[np.float32]]
"""low_res_masks and iou_predictions from one decoder call."""


@dataclass
class Outputs:
    """Outputs of the reference or of a bundle for one case, filled in stage by stage.

    Attributes:
        z_l: [1, 256, s, s] float32.
        high_res: the encoder's further outputs by name; SAM has none.
        eps: [1, 256, s, s], the U-Net's noise estimate; a bundle's is solved from Eq. 4.
        z_h: [1, 256, s, s]; the reference's is float64.
        decoded: masks by kind of prompt, computed from the reference's z_H.
        chained: masks by kind of prompt, computed from this side's own z_H.
    """

    z_l: NDArray[np.float32] | None = None
    high_res: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    eps: NDArray[np.float64] | None = None
    z_h: NDArray[np.float64] | None = None
    decoded: dict[str, Masks] = field(default_factory=dict)
    chained: dict[str, Masks] = field(default_factory=dict)


@torch.no_grad()
def record_reference(checkpoint: Checkpoint, cases: Sequence[Case], step: Step) -> list[Outputs]:
    """Run the unfolded reference on every case.

    Each part is built, run on all cases and freed, so no two large parts are in memory together.
    """
    outputs = [Outputs() for _ in cases]
    with step("reference encoder"):
        encoder = checkpoint.encoder()
        done: dict[int, Outputs] = {}
        for case, out in zip(cases, outputs, strict=True):
            # The same picture at another timestep has the same features.
            if (same := done.setdefault(id(case.prepared), out)) is not out:
                out.z_l, out.high_res = same.z_l, same.high_res
                continue
            encoded = named_features(encoder(torch.from_numpy(case.prepared.tensor)))
            out.z_l = encoded.pop(EMBEDDINGS).numpy()
            out.high_res = {name: feature.numpy() for name, feature in encoded.items()}
        del encoder
        gc.collect()
    with step("reference enhancer"):
        enhancer = checkpoint.enhancer()
        for case, out in zip(cases, outputs, strict=True):
            if case.timestep is not None:
                enhancer.set_level(case.timestep)
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
    """Return a value that an earlier stage has filled in."""
    assert value is not None, "stages run in order"
    return value
