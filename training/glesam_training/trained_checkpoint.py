"""Replace parts of a checkpoint by trained ones, and write the result to files."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from torch import nn

from glesam_export.checkpoints import Checkpoint, write
from glesam_export.checkpoints.checkpoint_folder import write_checkpoint_json
from glesam_export.checkpoints.packed_file import pack
from glesam_export.checkpoints.separate_files import FileCheckpoint
from glesam_export.enhancer.reference import Enhancer
from glesam_export.families import FAMILIES, Preset, family_of
from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_runtime.manifest import Source

LORA_FILE, PACKED_FILE = "pytorch_lora_weights.safetensors", "checkpoint.safetensors"
START_FILE = "start.safetensors"
"""The new LoRA that a training without `--lora` starts from."""


SAM_FILES = tuple(f"sam{family.suffix}" for family in FAMILIES.values())
"""Names of the file of a whole SAM, one for each family."""


def sam_file(preset: Preset) -> str:
    """Return the name of the file of a whole SAM: sam.pth, or sam.pt for SAM 2."""
    return f"sam{family_of(preset).suffix}"


class TrainedCheckpoint(Checkpoint):
    """A checkpoint with some parts replaced.

    Args:
        base: provides the other parts.
        enhancer: replaces the base's.
        decoder: replaces the base's.

    Attributes:
        own_enhancer: the enhancer that replaces the base's, or None.
        own_decoder: likewise.
    """

    def __init__(
        self,
        base: Checkpoint,
        enhancer: Enhancer | None = None,
        decoder: ReferenceDecoder | None = None,
    ) -> None:
        self.base, self.own_enhancer, self.own_decoder = base, enhancer, decoder
        self.preset, self.unet = base.preset, base.unet
        self.gamma = base.gamma if enhancer is None else enhancer.gamma
        self.timestep, self.alpha_bar = base.timestep, base.alpha_bar
        self.schedule = base.schedule
        self.trained, self.origin = base.trained, base.origin

    def encoder(self) -> nn.Module:
        """Return the base's image encoder."""
        return self.base.encoder()

    def enhancer(self) -> Enhancer:
        """Return a copy of the trained enhancer, or the base's."""
        if self.own_enhancer is None:
            return self.base.enhancer()
        return copy.deepcopy(self.own_enhancer).eval().requires_grad_(False)

    def decoder(self) -> ReferenceDecoder:
        """Return a copy of the trained decoder, or the base's."""
        if self.own_decoder is None:
            return self.base.decoder()
        return copy.deepcopy(self.own_decoder).eval().requires_grad_(False)

    def sources(self) -> tuple[Source, ...]:
        """Return the files of the base."""
        return self.base.sources()


def write_checkpoint(
    base: Checkpoint,
    folder: Path,
    enhancer: Enhancer | None = None,
    decoder: ReferenceDecoder | None = None,
) -> Path:
    """Write the trained parts in the released file formats, with what belongs to them.

    A checkpoint made of files becomes a checkpoint folder. It always holds the LoRA file, and the
    whole SAM in Meta's format if the decoder was trained, with what only video needs of the file
    that training started from; its `checkpoint.json` refers to the Stable Diffusion base and
    to an unchanged SAM and decoder. Any other checkpoint becomes one packed file in float32.

    Args:
        base: the checkpoint that training started from.
        folder: an existing folder.
        enhancer: the trained enhancer, or None.
        decoder: the trained decoder, or None.

    Returns:
        A path for `--checkpoint`: the folder, or the packed file in it.

    Raises:
        InputError: the folder cannot be written.
    """
    if not isinstance(base, FileCheckpoint):
        import torch

        trained = TrainedCheckpoint(base, enhancer, decoder)
        pack(trained, folder / PACKED_FILE, torch.float32, "glesam-train")
        return folder / PACKED_FILE
    files = base.weights
    lora, sam, overlay = folder / LORA_FILE, files.sam, files.decoder
    alpha = None  # what is written here says it
    if enhancer is not None:
        write.save_lora(lora, enhancer.unet)
    elif lora.exists() and lora.samefile(files.lora):
        alpha = files.lora_alpha
    else:
        # Written again: the file may leave its alpha to an option or to a file beside it.
        write.save_factors(lora, base.lora_factors)
    if decoder is not None:
        sam, overlay = folder / sam_file(base.preset), None
        unused = family_of(base.preset).unused(base.state("sam").tensors)
        write.save_sam(sam, base.preset, base.encoder(), decoder, unused)
    weights = replace(files, sam=sam, lora=lora, lora_alpha=alpha, decoder=overlay)
    preset = base.preset
    write_checkpoint_json(
        folder, weights, preset.name, base.unet.name, base.gamma, base.timestep, preset.input
    )
    return folder
