"""Reads the U-Net's LoRA, in the key styles that training code writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from glesam_export.checkpoints import Contents, Finding, Format
from glesam_export.checkpoints.lora_alpha import (
    CONFIG_FILE,
    FOLDER_FILES,
    AlphaSource,
    AlphaUnsaidError,
    agree,
    alpha_sources,
    lora_file,
    unsaid,
)
from glesam_export.checkpoints.lora_keys import (
    flat_names,
    layer_of,
    other_method,
    parse_key,
    why_foreign,
)
from glesam_export.checkpoints.stable_diffusion import on_meta
from glesam_export.checkpoints.state_dicts import first_three, unusable
from glesam_export.checkpoints.tensor_file import TensorFile
from glesam_export.enhancer.reference import LoraFactors
from glesam_export.presets import UNET_PRESETS
from glesam_runtime.errors import CheckpointError

ALPHA_TENSORS = ".alpha tensors"
"""Name of the tensors that say alpha, for messages."""

Layer = nn.Linear | nn.Conv2d
"""Layers that can be adapted."""


def parse(
    state: Mapping[str, Tensor], unet: nn.Module, where: str, said: Sequence[AlphaSource] = ()
) -> dict[str, LoraFactors]:
    """Sort the tensors of a LoRA file into the factors of each adapted layer.

    Args:
        state: the file's tensors.
        unet: the widened U-Net that the factors must fit; may be on the meta device.
        where: the file, for messages.
        said: what says alpha beside the file's `.alpha` tensors.

    Returns:
        A, B and alpha by module path. A and B are copies.

    Raises:
        CheckpointError: names the first three keys or shapes that do not fit, or a layer whose
            alpha nothing says, or of which two sources say different values.
    """
    if method := other_method(state):
        raise CheckpointError(f"{where}: {method}, not to a plain LoRA; train or convert to one")
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    prefixes: dict[str, str] = {}
    problems = unusable(state)
    flat = flat_names(unet)
    for name, tensor in state.items():
        key = parse_key(name)
        if key is None or (key.role == "alpha" and tensor.numel() != 1):
            problems.append(why_foreign(name))
            continue
        layer = layer_of(key, flat)
        prefixes[layer] = key.prefix
        if key.role == "alpha":
            alphas[layer] = float(tensor)
            continue
        factors = downs if key.role == "down" else ups
        if layer in factors:
            problems.append(f"{name} occurs twice, in two key styles")
        factors[layer] = tensor.to(torch.float32, copy=True)
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, Layer)}
    problems += [
        problem
        for name in downs.keys() | ups.keys() | alphas.keys()
        if (problem := _misfit(name, downs.get(name), ups.get(name), layers.get(name)))
    ]
    if problems:
        raise CheckpointError(f"{where}: does not fit the U-Net: {first_three(sorted(problems))}")
    if not downs:
        raise CheckpointError(f"{where}: holds no adapters")
    ranks = {name: downs[name].shape[0] for name in sorted(downs)}
    scaled = _alphas(ranks, alphas, prefixes, said, where)
    return {name: (downs[name], ups[name], scaled[name]) for name in ranks}


def _alphas(
    ranks: Mapping[str, int],
    tensors: Mapping[str, float],
    prefixes: Mapping[str, str],
    said: Sequence[AlphaSource],
    where: str,
) -> dict[str, float]:
    """Return the alpha of every layer, on which all that say one agree.

    An option fills in for the layers that the files leave open. It must agree with the files if
    they leave no layer open.

    Args:
        ranks: rank by layer.
        tensors: what `.alpha` tensors say, by layer.
        prefixes: beginning of a layer's name in a PEFT model.
        said: other sources.
        where: the file, for messages.
    """
    found: dict[str, list[tuple[str, float]]] = {}
    options = [source for source in said if source.is_option]
    files = [source for source in said if not source.is_option]
    try:
        for name, rank in ranks.items():
            found[name] = [(ALPHA_TENSORS, tensors[name])] if name in tensors else []
            for source in files:
                seen = prefixes[name] + name if source.with_prefix else name
                if (value := source.alpha_of(seen, rank)) is not None:
                    found[name].append((source.where, value))
        complete = all(found.values())
        for name, rank in ranks.items():
            for source in options:
                value = source.alpha_of(name, rank)
                if value is not None and (complete or not found[name]):
                    found[name].append((source.where, value))
        alphas = {name: agree(name, places) for name, places in found.items()}
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error
    open_layers = [name for name, alpha in alphas.items() if alpha is None]
    if open_layers:
        some = len(open_layers) < len(alphas)
        raise unsaid(where, list(ranks.values()), open_layers[0] if some else "")
    return {name: alpha for name, alpha in alphas.items() if alpha is not None}


def _misfit(name: str, down: Tensor | None, up: Tensor | None, layer: Layer | None) -> str | None:
    """Return why one layer's factors cannot be used, or None if they can."""
    if layer is None:
        return f"{name} is not a layer of this U-Net"
    if down is None or up is None:
        return f"{name} lacks one of its two factors"
    rank = down.shape[0] if down.ndim else 0
    if rank == 0:
        return f"{name} has A {list(down.shape)}, of rank 0"
    weight = layer.weight.shape
    wanted_down = torch.Size([rank, *weight[1:]])
    wanted_up = torch.Size([weight[0], rank, *([1] * (len(weight) - 2))])
    if down.shape != wanted_down:
        return f"{name} has A {list(down.shape)}, not {list(wanted_down)}"
    if up.shape != wanted_up:
        return f"{name} has B {list(up.shape)}, not {list(wanted_up)}"
    return None


def _holds_factors(names: Mapping[str, Tensor]) -> bool:
    """Return whether a file has the factors of a LoRA, or of a method like it."""
    keys = [key for name in names if (key := parse_key(name)) is not None]
    return any(key.role != "alpha" for key in keys) or other_method(names) is not None


def _matches(contents: Contents) -> bool:
    """Return whether a file has a LoRA key."""
    return contents.tensors is not None and _holds_factors(contents.tensors.shapes)


def _describe(contents: Contents) -> Finding:
    """Describe adapters: number of layers, ranks, alpha, and the U-Nets that they fit."""
    assert contents.tensors is not None, "a LoRA is a file of tensors"
    return _described(contents.path, contents.tensors)


def _described(path: Path, file: TensorFile) -> Finding:
    """Describe the adapters of an open file; `path` is as given."""
    loaded = file.read()
    if method := other_method(loaded):
        return Finding(path, "other", f"no plain LoRA: {method}")
    keys = {name: key for name in loaded if (key := parse_key(name)) is not None}
    downs = [loaded[name] for name, key in keys.items() if key.role == "down"]
    ranks = sorted({tensor.shape[0] for tensor in downs if tensor.ndim})
    words = f"LoRA of {len(downs)} layers, rank {', '.join(map(str, ranks))}"
    said = alpha_sources(file)
    places = [ALPHA_TENSORS] if any(key.role == "alpha" for key in keys.values()) else []
    places += [source.where for source in said]
    reasons = []
    for preset in UNET_PRESETS.values():
        fits = (preset.name,)
        try:
            factors = parse(loaded, on_meta(preset), "", said)
        except AlphaUnsaidError:
            words += f", alpha not said, for U-Net {preset.name}"
            return Finding(path, "lora", words, fits, ("alpha",))
        except CheckpointError as error:
            reasons.append((str(error).count(";"), str(error).removeprefix(": ")))
            continue
        rslora = any(source.rslora for source in said)
        alphas = {w / a.shape[0] ** 0.5 if rslora else w for a, _, w in factors.values()}
        values = ", ".join(f"{alpha:g}" for alpha in sorted(alphas))
        words += f", {'rslora ' if rslora else ''}alpha {values} (from {' and '.join(places)})"
        return Finding(path, "lora", f"{words}, for U-Net {preset.name}", fits)
    return Finding(path, "lora", f"{words}, for none of the U-Nets known here: {min(reasons)[1]}")


def _is_folder(contents: Contents) -> bool:
    """Return whether a path is a folder of a LoRA, PEFT's or diffusers'."""
    return any((contents.path / name).is_file() for name in (CONFIG_FILE, *FOLDER_FILES))


def _describe_folder(contents: Contents) -> Finding:
    """Describe the LoRA in a folder."""
    return _described(contents.path, TensorFile(lora_file(contents.path)))


FORMAT = Format(_matches, _describe)
FOLDER = Format(_is_folder, _describe_folder)
