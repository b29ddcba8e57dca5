"""Gets the embedding c of the empty prompt: from a file, or from a folder's text encoder."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glesam_export.checkpoints import Contents, Finding, Format, state_dicts
from glesam_export.checkpoints.tensor_file import UNREADABLE, TensorFile, first_line
from glesam_export.presets import UNET_PRESETS, UNetPreset
from glesam_runtime.errors import CheckpointError
from glesam_runtime.input_paths import read_json_file

WEIGHT_FILES = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")
"""Names of a text encoder's weights."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
"""One of these holds the vocabulary. Without either, transformers makes up an empty one."""

TOKENS = 77
"""Length of CLIP's text embedding."""


def weight_file(folder: Path) -> Path:
    """Find the text encoder's weights in a diffusers folder.

    Raises:
        CheckpointError: no text encoder, or no tokenizer, is there.
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
    """Read a text embedding from a .npy or .safetensors file: [1, 77, D] float32.

    Raises:
        CheckpointError: the file is unreadable, holds more than one tensor, or the tensor has
            another shape or values that are not finite.
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
        state = TensorFile(path, "--prompt-embeds").read()
        if len(state) != 1:
            raise CheckpointError(
                f"--prompt-embeds {path}: holds {len(state)} tensors, expected one [1,77,D]"
            )
        text = next(iter(state.values()))
    return checked(text, preset, f"--prompt-embeds {path}")


def checked(text: Tensor, preset: UNetPreset, where: str) -> Tensor:
    """Check a text embedding and return it in float32; `where` names its file.

    Raises:
        CheckpointError: it is not [1, 77, D], or not of finite floats.
    """
    if not text.is_floating_point():
        raise CheckpointError(f"{where}: dtype is {text.dtype}, not a float")
    wanted = [1, TOKENS, preset.text_dim]
    if list(text.shape) != wanted:
        raise CheckpointError(f"{where}: shape is {list(text.shape)}, {preset.name} takes {wanted}")
    if broken := state_dicts.unusable({"the embedding": text}):
        raise CheckpointError(f"{where}: {broken[0]}")
    return text.to(torch.float32, copy=True)


def encode_empty_prompt(folder: Path, preset: UNetPreset) -> Tensor:
    """Run a diffusers folder's text encoder on "": [1, 77, D] float32.

    Raises:
        CheckpointError: tokenizer or text encoder are missing or incomplete, or the width is wrong.
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
    except (*UNREADABLE, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"--sd {folder}: text encoder cannot be loaded ({first_line(error)})"
        ) from error
    # transformers draws missing weights at random and only warns.
    if missing := [f"{name} is missing" for name in sorted(report["missing_keys"])]:
        raise CheckpointError(f"--sd {weights}: {state_dicts.first_three(missing)}")
    if broken := state_dicts.unusable(encoder.state_dict()):
        raise CheckpointError(f"--sd {weights}: {state_dicts.first_three(broken)}")
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
    """Silence progress bars and warnings of transformers. The caller checks what they warn of."""
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


def read_json(path: Path, what: str, option: str = "--sd") -> Mapping[str, Any]:
    """Read a JSON object from a diffusers folder, or from a file with an option of its own.

    Args:
        path: the file.
        what: whose configuration it is, for messages.
        option: the option that names the file or its folder.

    Raises:
        CheckpointError: the file is missing, or not a JSON object.
    """
    try:
        value = json.loads(read_json_file(path).decode())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{option}: no {what} configuration at {path}; give a diffusers folder"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{option}: {path} is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{option}: {path} is not a JSON object")
    return value


def _matches(contents: Contents) -> bool:
    """Return whether a path holds a single array."""
    if contents.tensors is None:
        return contents.path.suffix == ".npy" and contents.path.is_file()
    return len(contents.tensors.shapes) == 1


def _describe(contents: Contents) -> Finding:
    """Describe a file of a single tensor, which is c if it has c's shape."""
    path = contents.path
    if contents.tensors is None:
        shape = _npy_shape(path)
    else:
        shape = tuple(next(iter(contents.tensors.shapes.values())).shape)
    fits = tuple(
        preset.name for preset in UNET_PRESETS.values() if shape == (1, TOKENS, preset.text_dim)
    )
    if not fits:
        return Finding(path, "other", f"single tensor of shape {list(shape)}")
    return Finding(path, "prompt_embeds", f"text embedding for U-Net {fits[0]}", fits)


def _npy_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of an array on disk."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: not a .npy of numbers ({error})") from error
    if not isinstance(array, np.ndarray):
        raise CheckpointError(f"{path}: an archive of arrays, not a .npy of one")
    return tuple(array.shape)


FORMAT = Format(_matches, _describe)
