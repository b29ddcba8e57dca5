"""What Algorithm 1 begins with to make nano: trained parts, and adapters whose ends are fitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glesam_export.checkpoints import write
from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles
from glesam_export.families.sam.presets import SAM_PRESETS
from glesam_export.presets import unet_preset
from glesam_training.latents import StoredLatents
from glesam_training.nano.ends import Pairs, fit_ends
from glesam_training.train import Job, new_adapters, stored_latents

PRESET = "nano"
TIMESTEP = 1
"""T of the released scripts. At 999, 1 / sqrt(abar_T) = 14.6 is more than minutes can unlearn."""

GAMMA = 0.125
"""CRE sums 64 channels of SAM's unit variance into each of the base's four, which makes eight
times the standard deviation the base was trained with; gamma takes it back (FDA, Sec. 3.3)."""

RANK = 16
END_RANK = 32
"""Of head's and tail's adapters: as many as the base has channels there, so that what the enhancer
sees and moves of a latent is bound by the U-Net's width alone."""

BATCH = 32
"""Pairs of latents at a time, while ends are fitted."""


def begin(
    folder: Path, sam: Path, base: tuple[Path, Path], seed: int, learn: Job, fit_pairs: int
) -> FileCheckpoint:
    """A GleSAM of trained parts, whose adapters change nothing but for their fitted ends.

    Args:
        folder: of the adapters' file.
        sam: the .pth.
        base: the diffusers folder and the text embedding.
        seed: of the adapters.
        learn: what Algorithm 1 learns from, with latents stored.
        fit_pairs: pairs of latents to fit to, in whole batches of 32.

    Returns:
        The checkpoint. Its adapters' file is found again, or made.

    Raises:
        InputError: no number of low versions.
        ValueError: a job that keeps no latents, or whose low versions are all clear.
    """
    new, lora = (folder / f"{name}-{seed}.safetensors" for name in ("adapters", "fitted"))

    def checkpoint_with(adapters: Path) -> FileCheckpoint:
        files = WeightFiles(sam, base[0], adapters, base[1])
        return FileCheckpoint(files, SAM_PRESETS[PRESET], unet_preset(PRESET), GAMMA, TIMESTEP)

    if not lora.is_file():
        ends = {"conv_in": END_RANK, "conv_out": END_RANK}
        write.save_tensors(new, new_adapters(unet_preset(PRESET), RANK, seed, ends))
        unfitted = checkpoint_with(new)
        enhancer, latents = unfitted.enhancer(), stored_latents(unfitted, learn)
        fit_ends(enhancer, _pairs(latents, fit_pairs, seed), seed)
        write.save_lora(lora, enhancer.unet)
    return checkpoint_with(lora)


def _pairs(latents: StoredLatents, count: int, seed: int) -> Pairs:
    """Batches of stored latents drawn from all pictures and versions."""
    rng = np.random.default_rng((seed, 5))
    versions = latents.options.variants
    assert versions is not None  # `store_latents` refuses to store those without number
    drawn = [rng.integers(0, len(latents.dataset), BATCH) for _ in range(-(-count // BATCH))]
    places = [(index, rng.integers(0, versions, BATCH)) for index in drawn]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for index, variant in places:
            low, clear = (torch.from_numpy(z).float() for z in latents.latents(index, variant))
            yield low, clear

    return batches
