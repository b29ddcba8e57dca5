"""Builds the parts of a GleSAM from state dicts, which are read when a part is asked for."""

from __future__ import annotations

import os
from abc import abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor, nn

from glesam_export.checkpoints import Checkpoint, lora, sam, stable_diffusion
from glesam_export.checkpoints.lora_alpha import AlphaSource
from glesam_export.enhancer.reference import Enhancer, LoraFactors, add_lora
from glesam_export.families import family_of
from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_runtime.bundle import sha256_of
from glesam_runtime.manifest import Source

Part = Literal["sam", "unet", "lora"]
"""The whole SAM, the 4-channel base of the U-Net, or its adapters."""


class State(NamedTuple):
    """The tensors of one part, and where they lie, for messages."""

    tensors: dict[str, Tensor]
    where: str


class StateCheckpoint(Checkpoint):
    """Weights from state dicts. A subclass says where they lie.

    Attributes:
        text: c, [1, 77, D] float32.
        lora_factors: the adapters. Like `text` they are small, so they are parsed once and kept.
    """

    text: Tensor
    lora_factors: dict[str, LoraFactors]

    @abstractmethod
    def state(self, part: Part) -> State:
        """Read one part, with the keys of the released file of that part.

        Raises:
            CheckpointError: the part cannot be read.
        """

    def alpha_sources(self) -> tuple[AlphaSource, ...]:
        """Return what says alpha beside the `.alpha` tensors of the adapters."""
        return ()

    def check_parts(self) -> None:
        """Refuse parts that do not fit the presets. Large parts are freed again.

        Raises:
            CheckpointError: names the file and the first three problems.
        """
        tensors, where = self.state("unet")
        stable_diffusion.check(tensors, self.unet, where)
        tensors, where = self.state("sam")
        sam.check(tensors, self.preset, where)
        tensors, where = self.state("lora")
        on_meta = stable_diffusion.on_meta(self.unet)
        self.lora_factors = lora.parse(tensors, on_meta, where, self.alpha_sources())

    def encoder(self) -> nn.Module:
        """Build the image encoder."""
        return family_of(self.preset).load_encoder(self.state("sam").tensors, self.preset)

    def decoder(self) -> ReferenceDecoder:
        """Build prompt encoder and mask decoder."""
        return family_of(self.preset).load_decoder(self.state("sam").tensors, self.preset)

    def enhancer(self) -> Enhancer:
        """Build the widened U-Net with its adapters, and the text."""
        unet = stable_diffusion.unet(self.state("unet").tensors, self.unet)
        # Pass copies, because the caller may train or fold the enhancer.
        add_lora(unet, {n: (a.clone(), b.clone(), w) for n, (a, b, w) in self.lora_factors.items()})
        enhancer = Enhancer(unet, self.text.clone(), self.gamma, self.timestep, self.alpha_bar)
        return enhancer.eval().requires_grad_(False)


def source(role: str, path: Path) -> Source:
    """Describe a file of weights for the manifest."""
    # A file name may not be UTF-8. The manifest's JSON must be.
    name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
    stat = path.stat()
    known = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return Source(role=role, file=name, sha256=_sha256_once(path, known))


@lru_cache(maxsize=64)
def _sha256_once(path: Path, _known: tuple[int, ...]) -> str:
    """Hash a file, which may hold gigabytes, once per process as long as it is not replaced."""
    return sha256_of(path)
