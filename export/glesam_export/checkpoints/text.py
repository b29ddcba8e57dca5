"""The embedding of the empty prompt, c: from a file, or by the text encoder of a folder."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glesam_export.checkpoints import tensors as files
from glesam_export.checkpoints.diffusion import read_json
from glesam_export.presets import UNetPreset
from glesam_runtime.errors import CheckpointError

WEIGHT_FILES = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")
"""Weights of a text encoder."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
"""One of them holds the vocabulary; without either an empty one would be made up."""

TOKENS = 77
"""Length of CLIP's text embedding."""


def weight_file(folder: Path) -> Path:
    """The text encoder's weights in a diffusers folder.

    Raises:
        CheckpointError: no text encoder, or no tokenizer.
    """
    for part, names in (("tokenizer", TOKENIZER_FILES), ("text_encoder", WEIGHT_FILES)):
        found = [folder / part / name for name in names if (folder / part / name).is_file()]
        if not found:
            raise CheckpointError(
                f"--sd {folder}: {part}/ holds none of {', '.join(names)} to embed the empty "
                "prompt with; add it or pass --prompt-embeds FILE"
            )
    return found[0]


def read(path: Path, preset: UNetPreset) -> Tensor:
    """A text embedding from a .npy or .safetensors file: [1, 77, D] float32.

    Raises:
        CheckpointError: unreadable, more than one tensor, another shape, or not finite floats.
    """
    if path.suffix == ".npy" and path.is_file():
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CheckpointError(
                f"--prompt-embeds {path}: not a .npy of numbers ({error})"
            ) from error
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            raise CheckpointError(f"--prompt-embeds {path}: not a .npy of floats")
        text = torch.from_numpy(array.astype(np.float32))
    else:
        state = files.read(path, "--prompt-embeds")
        if len(state) != 1:
            raise CheckpointError(
                f"--prompt-embeds {path}: holds {len(state)} tensors, expected one [1,77,D]"
            )
        text = next(iter(state.values()))
    return checked(text, preset, f"--prompt-embeds {path}")


def checked(text: Tensor, preset: UNetPreset, where: str) -> Tensor:
    """A text embedding in float32, once it is known to be one; `where` names its file.

    Raises:
        CheckpointError: not [1, 77, D], or not finite floats.
    """
    if not text.is_floating_point():
        raise CheckpointError(f"{where}: dtype is {text.dtype}, not a float")
    wanted = [1, TOKENS, preset.text_dim]
    if list(text.shape) != wanted:
        raise CheckpointError(f"{where}: shape is {list(text.shape)}, {preset.name} takes {wanted}")
    if broken := files.unusable({"the embedding": text}):
        raise CheckpointError(f"{where}: {broken[0]}")
    return text.float()


def encode_empty_prompt(folder: Path, preset: UNetPreset) -> Tensor:
    """The folder's own text encoder run on "": [1, 77, D] float32.

    Raises:
        CheckpointError: no tokenizer or text encoder there, an incomplete one, or one of another
            width.
    """
    weights = weight_file(folder)
    read_json(folder / "text_encoder" / "config.json", "text encoder")
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        with _silent_transformers():
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            encoder, report = CLIPTextModel.from_pretrained(
                weights.parent,
                local_files_only=True,
                output_loading_info=True,
                variant="fp16" if ".fp16." in weights.name else None,
            )
        ids = tokenizer("", padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    except (*files.UNREADABLE, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"--sd {folder}: text encoder cannot be loaded ({files.first_line(error)})"
        ) from error
    # What a file lacks is drawn at random, with no more than a warning.
    if missing := [f"{name} is missing" for name in sorted(report["missing_keys"])]:
        raise CheckpointError(f"--sd {weights}: {files.first_three(missing)}")
    if broken := files.unusable(encoder.state_dict()):
        raise CheckpointError(f"--sd {weights}: {files.first_three(broken)}")
    with torch.no_grad():
        text: Tensor = encoder.eval().float()(ids)[0]
    if text.shape[-1] != preset.text_dim:
        raise CheckpointError(
            f"--sd {folder}: text encoder gives {text.shape[-1]} dimensions, "
            f"{preset.name} takes {preset.text_dim}"
        )
    return text


@contextmanager
def _silent_transformers() -> Iterator[None]:
    """No progress bars and reports from transformers; what they warn of is checked here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
