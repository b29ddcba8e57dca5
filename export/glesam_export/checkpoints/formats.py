"""Lists the file formats, opens checkpoints, and finds out what a path holds.

Only names and shapes of tensors are read, so even a file of gigabytes takes only a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from glesam_export.checkpoints import (
    Checkpoint,
    Contents,
    Finding,
    Format,
    Kind,
    checkpoint_folder,
    hugging_face,
    lora,
    packed_file,
    sam,
    stable_diffusion,
    text_embedding,
)
from glesam_export.checkpoints.tensor_file import TensorFile
from glesam_export.families import Preset
from glesam_export.presets import sam_preset
from glesam_runtime.errors import CheckpointError
from glesam_runtime.manifest import MANIFEST_FILE

EXPECTED: Mapping[Kind, str] = {
    "sam": "SAM's weights",
    "unet": "a U-Net's weights",
    "lora": "a LoRA",
}
"""What an option that takes a file of tensors expects, for messages."""

BUNDLE = Format(
    lambda contents: (contents.path / MANIFEST_FILE).is_file(),
    lambda contents: Finding(
        contents.path, "bundle", "exported bundle; run it with glesam-run --bundle"
    ),
)

FORMATS: tuple[Format, ...] = (
    BUNDLE,
    checkpoint_folder.FORMAT,
    packed_file.FORMAT,
    stable_diffusion.FOLDER,
    stable_diffusion.CONFIG,
    lora.FOLDER,
    lora.FORMAT,
    sam.FORMAT,
    stable_diffusion.UNET,
    text_embedding.FORMAT,
)
"""All formats. The first one that matches is the format of a path."""


def identify(path: Path) -> Finding:
    """Find out what a file or folder holds.

    Raises:
        CheckpointError: the path is missing or unreadable, or a pickle would run code.
    """
    return _describe(_contents(path, "file"))


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a complete GleSAM checkpoint.

    Args:
        path: a folder that holds checkpoint.json, or a packed .safetensors file.

    Raises:
        CheckpointError: the path is of another format, or weights in it cannot be used.
    """
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such checkpoint; pass a folder that holds "
            f"{checkpoint_folder.CHECKPOINT_FILE} or a packed file"
        )
    contents = _contents(path, "")
    for each in FORMATS:
        if each.open is not None and each.matches(contents):
            return each.open(contents)
    # No format matches. The reader of the most likely one says what is wrong.
    if path.is_dir():
        return checkpoint_folder.open_folder(path)
    return packed_file.PackedCheckpoint(path, opened=contents.tensors)


def detect_sam(file: TensorFile) -> Preset:
    """Return the one preset that a file of SAM's weights fits.

    Raises:
        CheckpointError: the file is not SAM's, or does not fit exactly one preset.
    """
    require(file, "sam")
    finding = _describe(Contents(file.path, file))
    if not finding.fits:
        raise CheckpointError(f"{file.where}: {finding.words}; no preset fits it")
    if len(finding.fits) > 1:
        both = " and ".join(finding.fits)
        raise CheckpointError(f"{file.where}: fits {both} alike; choose one with --preset")
    return sam_preset(finding.fits[0])


def require(file: TensorFile, kind: Kind) -> None:
    """Raise an error if a file is not of the kind that its option takes.

    Raises:
        CheckpointError: the file is of another kind, which the message names.
    """
    expected = {"sam": sam.FORMAT, "unet": stable_diffusion.UNET, "lora": lora.FORMAT}[kind]
    contents = Contents(file.path, file)
    found = _format_of(contents)
    # Only an unexpected file is described in full: that compares it with every preset.
    if found is not expected or (kind == "unet" and _describe(contents).kind != kind):
        words = _describe(contents).words
        raise CheckpointError(f"{file.where}: not {EXPECTED[kind]} but a {words}")


def missing(findings: Iterable[Finding]) -> list[str]:
    """List the options that an export still needs beside these files."""
    found = list(findings)
    by_kind = {finding.kind: finding for finding in found}
    if by_kind.keys() & {"bundle", "checkpoint", "packed"}:
        return []
    options = []
    if not any(finding.kind == "sam" and not finding.lacks for finding in found):
        options.append("--sam FILE (the SAM it was trained with)")
    if not by_kind.keys() & {"sd", "unet"}:
        options.append("--sd FOLDER (the Stable Diffusion base)")
    if "unet" in by_kind and "config" not in by_kind:
        options.append("--unet-config FILE (the U-Net's config.json)")
    if "lora" not in by_kind:
        options.append("--lora FILE (the U-Net's adapters)")
    elif "alpha" in by_kind["lora"].lacks:
        options.append("--lora-alpha A (alpha of the LoRA's training: 8 in released code)")
    without_text = "unet" in by_kind or ("sd" in by_kind and "text encoder" in by_kind["sd"].lacks)
    if without_text and "prompt_embeds" not in by_kind:
        options.append("--prompt-embeds FILE (the empty prompt's embedding: no text encoder given)")
    return [*options, "--gamma G --timestep T (what the LoRA was trained with)"]


def from_released_code(findings: Iterable[Finding]) -> bool:
    """Return whether a LoRA lacks its alpha, as in the files of the released GleSAM trainer."""
    return any(finding.kind == "lora" and "alpha" in finding.lacks for finding in findings)


def _contents(path: Path, option: str) -> Contents:
    """Open a path if it is a file of tensors."""
    if path.is_dir() and hugging_face.weight_file(path) is None:
        return Contents(path)
    index = path.name.endswith(hugging_face.INDEX)
    if (path.suffix == ".json" and not index) or (path.suffix == ".npy" and path.is_file()):
        return Contents(path)
    return Contents(path, sam.open_file(path, option))


def _format_of(contents: Contents) -> Format | None:
    """Return the first format that matches."""
    return next((each for each in FORMATS if each.matches(contents)), None)


def _describe(contents: Contents) -> Finding:
    """Describe a path by its format, or say that it has none."""
    found = _format_of(contents)
    if found is not None:
        return found.describe(contents)
    if contents.tensors is None:
        words = "folder without manifest.json, checkpoint.json, model.safetensors or unet/"
        return Finding(contents.path, "other", words)
    names = list(contents.tensors.shapes)
    if any(name.startswith("model.diffusion_model.") for name in names):
        words = "Stable Diffusion in one file; convert it to a diffusers folder"
    elif any(name.startswith("text_model.") for name in names):
        words = "text encoder; pass the diffusers folder that holds it"
    else:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        words = f"file of tensors of no known kind: {shown}"
    return Finding(contents.path, "other", words)
