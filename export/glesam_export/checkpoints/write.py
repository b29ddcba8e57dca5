"""Writes weights in the released file formats. A file appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from glesam_export.checkpoints import lora_alpha
from glesam_export.checkpoints.stable_diffusion import SD_CHANNELS
from glesam_export.checkpoints.tensor_file import first_line
from glesam_export.enhancer.reference import ADAPTER, LoraFactors, replicate_channels
from glesam_export.families import Preset, family_of
from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_runtime.errors import InputError
from glesam_runtime.interface import LATENT_CHANNELS
from glesam_runtime.staging import staged_file


def save_sam(
    path: Path,
    preset: Preset,
    encoder: nn.Module,
    decoder: ReferenceDecoder,
    unused: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Write the weights of a whole SAM in the form of its family's released files.

    Args:
        path: the file.
        preset: the SAM.
        encoder: its image encoder.
        decoder: its prompt encoder and mask decoder.
        unused: tensors of a released file that no image needs, but its own builder.

    Raises:
        InputError: `path` cannot be written.
    """
    content = family_of(preset).file_content({**sam_state(preset, encoder, decoder), **unused})
    _write(path, lambda partial: torch.save(content, partial))


def save_lora(path: Path, unet: nn.Module) -> None:
    """Write a U-Net's adapters with diffusers' keys: `unet.<module>.lora_A.weight` and `.lora_B.`.

    The header says rank and alpha, as diffusers writes and reads them.

    Args:
        path: a .safetensors file.
        unet: the widened U-Net with unmerged peft adapters.

    Raises:
        InputError: `path` cannot be written.
        ValueError: the U-Net has no adapters, or merged ones.
    """
    save_factors(path, adapters(unet))


def save_factors(path: Path, factors: Mapping[str, LoraFactors]) -> None:
    """Write adapters as `save_lora` does, from A, B and alpha by module path.

    Raises:
        InputError: `path` cannot be written.
    """
    state: dict[str, Tensor] = {}
    for name, (a, b, _) in factors.items():
        state |= {f"unet.{name}.lora_A.weight": a, f"unet.{name}.lora_B.weight": b}
    ranks = {name: a.shape[0] for name, (a, _, _) in factors.items()}
    alphas = {name: alpha for name, (_, _, alpha) in factors.items()}
    save_tensors(path, state, lora_alpha.header(ranks, alphas))


def save_prompt_embeds(path: Path, text: Tensor) -> None:
    """Write a text embedding [1, 77, D] as .safetensors.

    Raises:
        InputError: `path` cannot be written.
    """
    save_tensors(path, {"prompt_embeds": text})


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a .safetensors file.

    Raises:
        InputError: `path` cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def save(partial: Path) -> None:
        save_file(plain, partial, metadata)
        _sort_metadata(partial)

    _write(path, save)


def sam_state(preset: Preset, encoder: nn.Module, decoder: ReferenceDecoder) -> dict[str, Tensor]:
    """Return the weights of a whole SAM on the CPU, with its family's released keys and order."""
    state = family_of(preset).state_dict(encoder, decoder)
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def adapters(unet: nn.Module) -> dict[str, LoraFactors]:
    """Return A, B and alpha of every adapted layer, by module path.

    Raises:
        ValueError: the U-Net has no adapters, or merged ones.
    """
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, LoraLayer)}
    if not layers:
        raise ValueError("the U-Net carries no adapters")
    if merged := [name for name, layer in layers.items() if layer.merged]:
        raise ValueError(f"the adapter of {merged[0]} is merged into its layer; unmerge it first")
    return {
        name: (
            layer.lora_A[ADAPTER].weight.detach(),
            layer.lora_B[ADAPTER].weight.detach(),
            float(layer.lora_alpha[ADAPTER]),
        )
        for name, layer in layers.items()
    }


def base_state(unet: nn.Module) -> dict[str, Tensor]:
    """Return the weights of the 4-channel U-Net that CRE widened, without adapters.

    Raises:
        ValueError: head or tail do not repeat four channels, so there is no such U-Net.
    """
    wide = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in unet.state_dict().items()
        if ".lora_" not in name
    }
    base = wide | {
        "conv_in.weight": wide["conv_in.weight"][:, :SD_CHANNELS],
        "conv_out.weight": wide["conv_out.weight"][:SD_CHANNELS],
        "conv_out.bias": wide["conv_out.bias"][:SD_CHANNELS],
    }
    again = replicate_channels(base, LATENT_CHANNELS)
    for name in ("conv_in.weight", "conv_out.weight", "conv_out.bias"):
        if not torch.equal(again[name], wide[name]):
            raise ValueError(f"{name} is not {SD_CHANNELS} channels repeated; CRE stays frozen")
    return base


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a .safetensors file, in place.

    safetensors writes them in a different order each time. The same weights should have one hash.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            file.seek(8)
            file.write(raw.ljust(size))  # the format pads with spaces


def _write(path: Path, save: Callable[[Path], None]) -> None:
    """Save to a temporary file beside `path`, then rename it."""
    with staged_file(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        try:
            save(partial)
            partial.chmod(mode)  # safetensors makes files that only the user can read
        except (RuntimeError, SafetensorError) as error:  # neither library raises an OSError
            raise InputError(f"{path}: cannot be written ({first_line(error)})") from error
