"""A checkpoint whose parts are state dicts, read when they are asked for."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor, nn

from glesam_export.checkpoints import Checkpoint, diffusion, lora, sam
from glesam_export.reference import Decoder, Enhancer, LoraFactors, add_lora
from glesam_runtime.bundle import sha256_of
from glesam_runtime.manifest import Source

if TYPE_CHECKING:
    from glesam_export.reference_sam2 import Sam2Decoder

Part = Literal["sam", "unet", "lora"]
"""SAM whole, the 4-channel base of the U-Net, its adapters."""


class State(NamedTuple):
    """The tensors of one part and, for messages, where they were read."""

    tensors: dict[str, Tensor]
    where: str


class StateCheckpoint(Checkpoint):
    """Weights from state dicts; a subclass says where each of them lies.

    Attributes:
        text: c, [1, 77, D] float32. Kept, since it is small.
    """

    text: Tensor

    @abstractmethod
    def state(self, part: Part) -> State:
        """Read one part, its keys as in the released file of that part.

        Raises:
            CheckpointError: unreadable.
        """

    def check_parts(self) -> None:
        """Refuse parts that do not fit the presets; each is read and let go again.

        Raises:
            CheckpointError: naming where, and the first three misfits.
        """
        tensors, where = self.state("unet")
        diffusion.check(tensors, self.unet, where)
        tensors, where = self.state("sam")
        sam.check(tensors, self.preset, where)
        self._lora()

    def encoder(self) -> nn.Module:
        """The image encoder."""
        return sam.encoder(self.state("sam").tensors, self.preset)

    def decoder(self) -> Decoder | Sam2Decoder:
        """Prompt encoder and mask decoder."""
        return sam.decoder(self.state("sam").tensors, self.preset)

    def enhancer(self) -> Enhancer:
        """The widened U-Net with its adapters, and the text."""
        unet = diffusion.unet(self.state("unet").tensors, self.unet)
        add_lora(unet, self._lora())
        enhancer = Enhancer(unet, self.text, self.gamma, self.timestep, self.alpha_bar)
        return enhancer.eval().requires_grad_(False)

    def _lora(self) -> dict[str, LoraFactors]:
        """The adapters, checked against the U-Net's shapes."""
        tensors, where = self.state("lora")
        return lora.parse(tensors, diffusion.on_meta(self.unet), where)


def source(role: str, path: Path) -> Source:
    """A file of weights as the manifest names it."""
    # A name need not be UTF-8, the manifest's JSON must.
    name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
    return Source(role=role, file=name, sha256=sha256_of(path))
