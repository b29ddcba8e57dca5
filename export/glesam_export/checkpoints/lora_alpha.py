"""Finds the alpha of a LoRA's layers: in the file's header, beside the file, or in an option.

    delta W = (alpha / r) B A            alpha / sqrt(r) for a rank-stabilised LoRA (rslora)

The values here are always meant for alpha / r: those of an rslora are multiplied by sqrt(r).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from glesam_export.checkpoints.tensor_file import TensorFile
from glesam_runtime.errors import CheckpointError
from glesam_runtime.input_paths import read_json_file

METADATA_KEY = "lora_adapter_metadata"
"""Entry of a .safetensors header in which diffusers keeps the settings of adapters, as JSON."""

UNET_PREFIX = "unet."
"""Beginning of the U-Net's settings there."""

CONFIG_FILE = "adapter_config.json"
"""File in which PEFT keeps the settings of an adapter."""

PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
"""PEFT's files of tensors, beside which `CONFIG_FILE` lies."""

FOLDER_FILES = (*PEFT_FILES, "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
"""Files that a folder of a LoRA holds, PEFT's or diffusers'."""

RELEASED_ALPHA = 8
"""Alpha of the released trainer at every rank. Its files do not say it."""

SAME = 1e-6
"""Relative difference up to which two values of alpha are the same."""

PLAIN_INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base's weights as they are."""


class _PeftSettings(msgspec.Struct, frozen=True):
    """Settings of a PEFT adapter that decide what it computes."""

    r: int | None = None
    lora_alpha: float | None = None
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool | None = None
    peft_type: str | None = "LORA"
    init_lora_weights: Any = True
    use_dora: Any = None
    lora_bias: Any = None
    use_qalora: Any = None
    use_bdlora: Any = None
    alora_invocation_tokens: Any = None
    layer_replication: Any = None
    arrow_config: Any = None
    monteclora_config: Any = None
    kasa_config: Any = None


UNSUPPORTED = (
    *("use_dora", "lora_bias", "use_qalora", "use_bdlora", "alora_invocation_tokens"),
    *("layer_replication", "arrow_config", "monteclora_config", "kasa_config"),
)
"""Settings that make an adapter compute something else than a LoRA."""


class AlphaUnsaidError(CheckpointError):
    """A LoRA fits, but nothing says the alpha of its layers."""


@dataclass(frozen=True)
class AlphaSource:
    """One place that says the alpha of layers.

    Attributes:
        where: the place, for messages.
        alpha: alpha of the layers that no pattern matches; None if it says nothing of them.
        rank: rank of the layers that no pattern matches; None if it says nothing of them.
        alpha_pattern: alpha by the ending of a layer's path, a regular expression.
        rank_pattern: rank, likewise.
        rslora: whether the factor is alpha / sqrt(r).
        with_prefix: whether the patterns see the `unet.` of a PEFT model's names.
        is_option: whether this is no file but an option. It fills in for what files leave open.
    """

    where: str
    alpha: float | None
    rank: int | None = None
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    rslora: bool = False
    with_prefix: bool = False
    is_option: bool = False

    def alpha_of(self, name: str, rank: int) -> float | None:
        """Return the alpha of a layer, for the factor alpha / r; None if nothing is said.

        Args:
            name: the layer's path, as the patterns see it.
            rank: rank of the layer's factors.

        Raises:
            CheckpointError: the place says another rank.
        """
        said = _first_match(self.rank_pattern, name, self.rank)
        if said is not None and said != rank:
            raise CheckpointError(
                f"{name} has factors of rank {rank}, but {self.where} says rank {said}"
            )
        alpha: float | None = _first_match(self.alpha_pattern, name, self.alpha)
        return alpha * math.sqrt(rank) if alpha is not None and self.rslora else alpha


def _first_match(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the end of a path, as PEFT does."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def lora_file(path: Path) -> Path:
    """Return the file of tensors that `--lora` means: the path, or the only one in a folder.

    Raises:
        CheckpointError: a folder holds none of the known names, or several.
    """
    if not path.is_dir():
        return path
    found = [path / name for name in FOLDER_FILES if (path / name).is_file()]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none of " + ", ".join(FOLDER_FILES)
        raise CheckpointError(f"--lora {path}: holds {names}; pass the file itself")
    return found[0]


def config_beside(file: Path) -> Path | None:
    """Return the adapter_config.json of PEFT's file of tensors; None if there is none."""
    config = file.with_name(CONFIG_FILE)
    return config if file.name in PEFT_FILES and config.is_file() else None


def alpha_sources(file: TensorFile, given: float | None = None) -> tuple[AlphaSource, ...]:
    """Find what the header, the file beside it and `--lora-alpha` say; `.alpha` tensors come apart.

    Args:
        file: the LoRA.
        given: the value of `--lora-alpha`.

    Returns:
        The sources. One that says nothing about the U-Net is left out.

    Raises:
        CheckpointError: a source cannot be read, or it describes another method than a LoRA.
    """
    sources = []
    try:
        if (raw := file.metadata.get(METADATA_KEY)) is not None:
            where = f"the header's {METADATA_KEY}"
            if (entries := _unet_entries(_json_object(raw, where))) is not None:
                sources.append(_from_settings(entries, where, with_prefix=False))
        if (config := config_beside(file.path)) is not None:
            entries = _json_object(read_json_file(config).decode(), CONFIG_FILE)
            sources.append(_from_settings(entries, CONFIG_FILE, with_prefix=True))
    except (CheckpointError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file.where}: {error}") from error
    if given is not None:
        sources.append(AlphaSource("--lora-alpha", given, is_option=True))
    return tuple(sources)


def header(ranks: Mapping[str, int], alphas: Mapping[str, float]) -> dict[str, str]:
    """Return the header that says these ranks and alphas by layer, as diffusers writes it."""
    settings = {
        "r": max(ranks.values()),
        "lora_alpha": max(alphas.values()),
        "rank_pattern": {f"^{_escaped(name)}": rank for name, rank in ranks.items()},
        "alpha_pattern": {f"^{_escaped(name)}": alpha for name, alpha in alphas.items()},
        "target_modules": sorted(ranks),
    }
    for key, common in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        pattern = settings[key]
        assert isinstance(pattern, dict)
        settings[key] = {n: value for n, value in pattern.items() if value != settings[common]}
    prefixed = {UNET_PREFIX + key: value for key, value in settings.items()}
    return {METADATA_KEY: json.dumps(prefixed, sort_keys=True)}


def _escaped(name: str) -> str:
    """Return a layer's path as a regular expression."""
    return name.replace(".", r"\.")


def _unet_entries(entries: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the U-Net's settings: those with its prefix, or all if no name has a prefix."""
    own = {k.removeprefix(UNET_PREFIX): v for k, v in entries.items() if k.startswith(UNET_PREFIX)}
    if own:
        return own
    return entries if "r" in entries or "lora_alpha" in entries else None


def _json_object(raw: str, where: str) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} is not a JSON object")
    return value


def _from_settings(entries: Mapping[str, Any], where: str, with_prefix: bool) -> AlphaSource:
    """Read the settings of an adapter, and refuse those of other methods."""
    try:
        settings = msgspec.convert(dict(entries), _PeftSettings)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{where}: {error}") from error
    if settings.peft_type not in (None, "LORA"):
        raise CheckpointError(f"{where}: peft_type is {settings.peft_type!r}, not 'LORA'")
    for name in UNSUPPORTED:
        if value := getattr(settings, name):
            raise CheckpointError(
                f"{where}: {name} is {value!r}, so this is no plain LoRA; train one without it"
            )
    initial = settings.init_lora_weights
    if not (initial is None or isinstance(initial, bool) or initial in PLAIN_INITIALISATIONS):
        raise CheckpointError(
            f"{where}: init_lora_weights is {initial!r}, which changes the base's weights; "
            "convert the adapter to a plain LoRA when saving it"
        )
    patterns = {**(settings.alpha_pattern or {}), **(settings.rank_pattern or {})}
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise CheckpointError(f"{where}: pattern {pattern!r} is wrong ({error})") from error
    values = [settings.lora_alpha, *(settings.alpha_pattern or {}).values()]
    if not all(math.isfinite(value) for value in values if value is not None):
        raise CheckpointError(f"{where}: an alpha is not a finite number")
    return AlphaSource(
        where,
        settings.lora_alpha,
        settings.r,
        settings.alpha_pattern or {},
        settings.rank_pattern or {},
        bool(settings.use_rslora),
        with_prefix,
    )


def agree(name: str, said: Sequence[tuple[str, float]]) -> float | None:
    """Return the alpha on which all sources of a layer agree; None if there is none.

    Args:
        name: the layer, for messages.
        said: places and what they say.

    Raises:
        CheckpointError: two places say different values.
    """
    if not said:
        return None
    first, value = said[0]
    for where, other in said[1:]:
        if not math.isclose(value, other, rel_tol=SAME):
            raise CheckpointError(
                f"{name} has alpha {value:g} by {first}, but {other:g} by {where}; keep one of them"
            )
    return value


def unsaid(where: str, ranks: Sequence[int], layer: str = "") -> AlphaUnsaidError:
    """Return the error about a file that does not say its alpha.

    Args:
        where: the file.
        ranks: the ranks of its layers.
        layer: a layer that has none, if others have one.
    """
    found = f"does not say alpha for {layer}" if layer else "does not say its alpha"
    rank = max(ranks)
    if rank == RELEASED_ALPHA:
        values = f"--lora-alpha {rank} (the released trainer's, and alpha = rank)"
    else:
        values = f"--lora-alpha {RELEASED_ALPHA} (the released trainer's) or {rank} (alpha = rank)"
    return AlphaUnsaidError(
        f"{where}: {found}, and a wrong one scales the enhancement without an error; pass {values}"
    )
