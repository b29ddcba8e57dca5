"""What a command line asks for: which weights, which precision, which batch.

Nothing here loads torch: a wrong option is reported before seconds are spent on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from glesam_export.presets import SamPreset, UNetPreset, sam_preset, unet_preset
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import Manifest, PrecisionName

if TYPE_CHECKING:
    from glesam_export.checkpoints import Checkpoint

PAPER_GAMMA, PAPER_TIMESTEP = 5.0, 999
"""For random weights, which were trained with nothing."""

EXPORTED_PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "fp16", "bf16")
MAX_BATCH = 1024
BUILT_IN = "built-in, untrained"
"""What the manifest says of weights that a preset brings along."""


@dataclass(frozen=True)
class WeightOptions:
    """The weight options of `glesam-export`, as given; None where one was not.

    Attributes:
        preset: the SAM's name.
        unet: the U-Net's name; None is the preset's own.
        sam: SAM's weights.
        sd: a diffusers folder.
        lora: the U-Net's adapters.
        prompt_embeds: the text embedding.
        gamma: adaption weight.
        timestep: T.
        random_weights: a seed.
    """

    preset: str | None
    unet: str | None
    sam: Path | None
    sd: Path | None
    lora: Path | None
    prompt_embeds: Path | None
    gamma: float | None
    timestep: int | None
    random_weights: int | None

    @property
    def given_files(self) -> list[str]:
        """The file options that were given."""
        files = {
            "--sam": self.sam,
            "--sd": self.sd,
            "--lora": self.lora,
            "--prompt-embeds": self.prompt_embeds,
        }
        return [name for name, path in files.items() if path is not None]


def make_checkpoint(options: WeightOptions) -> Checkpoint:
    """The checkpoint that the options describe.

    Raises:
        InputError: options that are missing or contradict one another.
        CheckpointError: files that cannot be used.
    """
    if options.preset is None:
        raise InputError("no --preset given; pass nano, sam_vit_b, sam_vit_l or sam_vit_h")
    preset = sam_preset(options.preset)
    unet = unet_preset(options.unet or preset.default_unet)
    if options.gamma is not None and not (math.isfinite(options.gamma) and options.gamma > 0):
        raise InputError(f"--gamma {options.gamma:g}: must be a positive number")
    if options.given_files and options.random_weights is not None:
        raise InputError(f"--random-weights and {options.given_files[0]} exclude each other")
    if options.given_files:
        return _from_files(options, preset, unet)
    if options.random_weights is not None:
        return _from_seed(options, options.random_weights, preset, unet)
    if preset.builtin is not None:
        return _built_in(options, preset, unet)
    raise InputError(
        f"no weights for {preset.name}: pass --sam FILE --sd FOLDER --lora FILE --gamma G "
        "--timestep T, or --random-weights SEED for a model that means nothing"
    )


def for_bundle(options: WeightOptions, manifest: Manifest) -> WeightOptions:
    """The options completed by what a bundle says of itself.

    Raises:
        InputError: an option contradicts the bundle, or its weights are not named.
    """
    model, origin = manifest.model, manifest.provenance.weights
    known = {
        "preset": model.preset,
        "unet": model.unet,
        "gamma": model.gamma,
        "timestep": model.timestep,
    }
    for name, value in known.items():
        given = getattr(options, name)
        if given not in (None, value):
            raise InputError(f"--{name} {given}: the bundle was exported with {value}")
    if not options.given_files and options.random_weights is None and origin != BUILT_IN:
        raise InputError(f"the bundle's weights were {origin}; pass the same weight options")
    return replace(
        options,
        preset=model.preset,
        unet=model.unet,
        gamma=model.gamma,
        timestep=model.timestep,
    )


def one_precision(precision: str | None, fp16: bool, bf16: bool) -> PrecisionName:
    """The one precision that `--precision`, `--fp16` and `--bf16` ask for.

    Raises:
        InputError: two of them differ, or the name is unknown.
    """
    asked = {precision} - {None} | ({"fp16"} if fp16 else set()) | ({"bf16"} if bf16 else set())
    if len(asked) > 1:
        raise InputError(
            f"--precision: asked for {' and '.join(sorted(map(str, asked)))}; pass one"
        )
    name = next(iter(asked), "fp32")
    for known in EXPORTED_PRECISIONS:
        if name == known:
            return known
    hint = "; it comes from calibration" if name in get_args(PrecisionName) else ""
    raise InputError(f"--precision {name}: choose fp32, fp16 or bf16{hint}")


def batch_size(batch: str) -> int | Literal["dynamic"]:
    """N of encoder and enhancer: a number from 1, or "dynamic".

    Raises:
        InputError: anything else.
    """
    if batch == "dynamic":
        return "dynamic"
    if batch.isdecimal() and len(batch) < 10 and 1 <= int(batch) <= MAX_BATCH:
        return int(batch)
    raise InputError(f"--batch {batch}: pass a number from 1 to {MAX_BATCH}, or 'dynamic'")


def _from_files(options: WeightOptions, preset: SamPreset, unet: UNetPreset) -> Checkpoint:
    """Weights from the user's files: all of them, with what the LoRA was trained with."""
    from glesam_export.checkpoints.files import FileCheckpoint, WeightFiles

    if options.sam is None or options.sd is None or options.lora is None:
        missing = [name for name in ("--sam", "--sd", "--lora") if name not in options.given_files]
        raise InputError(f"{' and '.join(missing)} missing beside {', '.join(options.given_files)}")
    if options.gamma is None or options.timestep is None:
        raise InputError(
            "--gamma and --timestep must be given with weights from files: the paper trains with "
            "5 and 999, released code with 3 or 5 and 1, and a wrong pair is silent garbage"
        )
    weights = WeightFiles(options.sam, options.sd, options.lora, options.prompt_embeds)
    return FileCheckpoint(weights, preset, unet, options.gamma, options.timestep)


def _from_seed(
    options: WeightOptions, seed: int, preset: SamPreset, unet: UNetPreset
) -> Checkpoint:
    """Random weights, asked for by seed."""
    from glesam_export.checkpoints.random import RandomCheckpoint

    if not 0 <= seed < 2**31:
        raise InputError(f"--random-weights {seed}: pass a seed from 0 to {2**31 - 1}")
    gamma = PAPER_GAMMA if options.gamma is None else options.gamma
    timestep = PAPER_TIMESTEP if options.timestep is None else options.timestep
    return RandomCheckpoint(seed, preset, unet, gamma, timestep)


def _built_in(options: WeightOptions, preset: SamPreset, unet: UNetPreset) -> Checkpoint:
    """The weights that a preset brings along, with its own gamma and timestep."""
    from glesam_export.checkpoints.random import RandomCheckpoint

    builtin = preset.builtin
    assert builtin is not None, "asked only where there is one"
    if options.gamma not in (None, builtin.gamma) or options.timestep not in (
        None,
        builtin.timestep,
    ):
        raise InputError(
            f"--gamma, --timestep: {preset.name}'s built-in weights are for {builtin.gamma:g} and "
            f"{builtin.timestep}; leave them out"
        )
    if unet.name != preset.default_unet:
        raise InputError(f"--unet {unet.name}: {preset.name}'s built-in weights are for its own")
    return RandomCheckpoint(
        builtin.seed, preset, unet, builtin.gamma, builtin.timestep, origin=BUILT_IN
    )
