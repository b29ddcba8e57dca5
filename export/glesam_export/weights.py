"""Opens the weights that a command line asks for: from files, a checkpoint, a seed, or built-in.

This module does not import torch, so a wrong option is reported at once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_export.families import InputName, Preset, with_input
from glesam_export.presets import UNetPreset, sam_preset, unet_preset
from glesam_export.timesteps import Timesteps, add_levels, steps_of
from glesam_export.weight_options import WeightOptions
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import RELEASED_INPUT, Manifest
from glesam_runtime.timestep_levels import levels_of

if TYPE_CHECKING:
    from glesam_export.checkpoints import Checkpoint
    from glesam_export.checkpoints.separate_files import OpenedFiles

PAPER_GAMMA, PAPER_TIMESTEP = 5.0, 999
"""Defaults for random weights."""

BUILT_IN = "built-in"
"""The manifest's name for weights that ship with a preset."""


def make_checkpoint(
    options: WeightOptions,
    warn: Callable[[str], object] = warnings.warn,
    *,
    levels: bool = False,
) -> Checkpoint:
    """Open the checkpoint that the options describe.

    Args:
        options: where the weights come from.
        warn: called with a message if `--input` differs from what the checkpoint was trained with,
            or `--prediction-type` from what the scheduler says, or if several timesteps are asked
            for and the checkpoint was trained with one.
        levels: whether the caller can use several timesteps.

    Raises:
        InputError: options are missing or contradict one another.
        CheckpointError: a file cannot be used.
    """
    asked = options.timestep
    if not isinstance(asked, Timesteps):
        return _make(options, warn)
    if not levels:
        raise InputError(
            f"--timestep {asked}: this command takes one timestep; glesam-export takes several"
        )
    whole = options.checkpoint is not None or (
        not options.given_files and options.random_weights is None
    )
    checkpoint = _make(replace(options, timestep=None if whole else int(asked)), warn)
    own = checkpoint.timestep
    if own not in asked.steps:
        raise InputError(
            f"--timestep {asked}: {own} is missing, with which the checkpoint was trained; add it"
        )
    add_levels(checkpoint, asked.steps)
    if whole:
        warn(
            f"--timestep {asked}: the checkpoint was trained with {own}, which is the default; "
            "its masks at other timesteps may be less accurate"
        )
    return checkpoint


def _make(options: WeightOptions, warn: Callable[[str], object]) -> Checkpoint:
    """Open the checkpoint of options with one timestep at most."""
    if options.gamma is not None and not (math.isfinite(options.gamma) and options.gamma > 0):
        raise InputError(f"--gamma {options.gamma:g}: must be a positive number")
    alpha = options.lora_alpha
    if alpha is not None and not (math.isfinite(alpha) and alpha > 0):
        raise InputError(f"--lora-alpha {alpha:g}: must be a positive number")
    if alpha is not None and options.lora_file is None:
        raise InputError(
            f"--lora-alpha {alpha:g}: goes with a file by --lora; other weights say their alpha "
            "themselves"
        )
    first, *others = options.given_weights or [""]
    if others and first in ("--checkpoint", "--random-weights"):
        raise InputError(f"{first} and {others[0]} exclude each other")
    if options.checkpoint is not None:
        return _whole(options, options.checkpoint, warn)
    if options.given_files:
        return _from_files(options, warn)
    if options.preset is None:
        raise InputError(
            "neither weights nor a --preset given; pass --checkpoint PATH, or files with --sam, "
            "--sd and --lora, or --preset nano for the built-in model"
        )
    preset = with_input(sam_preset(options.preset), options.input)
    unet = unet_preset(options.unet or preset.default_unet)
    if options.random_weights is not None:
        return _from_seed(options, options.random_weights, preset, unet)
    if preset.builtin is not None:
        return _built_in(options, preset.name, preset.builtin, warn)
    raise InputError(
        f"no weights for {preset.name}: pass --checkpoint PATH, --sam FILE --sd FOLDER --lora FILE "
        "--gamma G --timestep T, or --random-weights SEED for meaningless masks"
    )


def detected(options: WeightOptions) -> WeightOptions:
    """Add the presets that the options do not name, found by looking into the files.

    Raises:
        InputError: an unknown preset was named.
        CheckpointError: a file is not what its option takes, or fits no preset.
    """
    return _completed(options, _opened(options))


def _completed(options: WeightOptions, opened: OpenedFiles) -> WeightOptions:
    """Do what `detected` does, with files that stay open."""
    from glesam_export.checkpoints.formats import detect_sam, require

    preset, unet = options.preset, options.unet
    if preset is not None:
        sam_preset(preset)
        if options.sam is not None:
            require(opened.sam, "sam")
    elif options.sam is not None:
        preset = detect_sam(opened.sam).name
    if options.lora_file is not None:
        require(opened.lora, "lora")
    if options.sd is not None and opened.bare_unet is not None:
        require(opened.bare_unet, "unet")
    if unet is not None:
        unet_preset(unet)
    elif options.sd is not None:
        unet = opened.base.preset().name
    return replace(options, preset=preset, unet=unet)


def _opened(options: WeightOptions) -> OpenedFiles:
    """Return the files of the options; each is opened on first use."""
    from glesam_export.checkpoints.separate_files import OpenedFiles

    return OpenedFiles(
        options.sam, options.sd, options.lora_file, options.unet_config, options.decoder
    )


def for_bundle(options: WeightOptions, manifest: Manifest) -> WeightOptions:
    """Complete the options with what a bundle's manifest says.

    Raises:
        InputError: an option contradicts the bundle, or the bundle's weights were not given.
    """
    model, origin = manifest.model, manifest.provenance.weights
    released = RELEASED_INPUT in (manifest.requires or ())
    steps = [level.timestep for level in levels_of(manifest)]
    others = [step for step in steps if step != model.timestep]
    timestep = Timesteps([model.timestep, *others]) if steps else model.timestep
    prepared: InputName = "released" if released else "sam"
    known = {
        "preset": model.preset,
        "unet": model.unet,
        "gamma": model.gamma,
        "timestep": timestep,
        "input": prepared,
    }
    for name, value in known.items():
        given = getattr(options, name)
        if given is not None and (given != value or steps_of(given) != steps_of(value)):
            raise InputError(f"--{name} {given}: the bundle was exported with {value}")
    if not options.given_weights and origin != BUILT_IN:
        raise InputError(f"the bundle's weights were {origin}; pass the same weight options")
    return replace(
        options,
        preset=model.preset,
        unet=model.unet,
        gamma=model.gamma,
        timestep=timestep,
        input=prepared,
    )


def _from_files(options: WeightOptions, warn: Callable[[str], object]) -> Checkpoint:
    """Open the user's files. All must be given, with the LoRA's gamma and timestep."""
    if options.sam is None or options.sd is None or options.lora_file is None:
        missing = [name for name in ("--sam", "--sd", "--lora") if name not in options.given_files]
        raise InputError(f"{' and '.join(missing)} missing beside {', '.join(options.given_files)}")
    if options.gamma is None or options.timestep is None:
        raise InputError(
            "--gamma and --timestep must be given with weights from files: the paper trains with "
            "5 and 999, released code with 3 or 5 and 1, and a wrong pair gives garbage without "
            "an error"
        )
    from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles

    opened = _opened(options)
    known = _completed(options, opened)
    assert known.preset is not None, "detected from the file of --sam"
    assert known.unet is not None, "detected from the files of --sd"
    weights = WeightFiles(
        options.sam,
        options.sd,
        options.lora_file,
        options.prompt_embeds,
        options.unet_config,
        options.lora_alpha,
        options.decoder,
        options.prediction_type,
    )
    preset, unet = with_input(sam_preset(known.preset), options.input), unet_preset(known.unet)
    made = FileCheckpoint(weights, preset, unet, options.gamma, options.timestep, opened)
    if options.prediction_type not in (None, made.own_prediction_type):
        warn(
            f"--prediction-type {options.prediction_type}: {opened.base.schedule_from} says "
            f"{made.own_prediction_type}; the enhancer reads the U-Net's output as noise"
        )
    return made


def _from_seed(options: WeightOptions, seed: int, preset: Preset, unet: UNetPreset) -> Checkpoint:
    """Draw random weights from a seed."""
    from glesam_export.checkpoints.random import RandomCheckpoint

    if not 0 <= seed < 2**31:
        raise InputError(f"--random-weights {seed}: pass a seed from 0 to {2**31 - 1}")
    gamma = PAPER_GAMMA if options.gamma is None else options.gamma
    timestep = PAPER_TIMESTEP if options.timestep is None else options.timestep
    return RandomCheckpoint(seed, preset, unet, gamma, timestep)


def _whole(options: WeightOptions, path: Path, warn: Callable[[str], object]) -> Checkpoint:
    """Open a checkpoint folder or a packed file. Both record presets, gamma, timestep and input."""
    from glesam_export.checkpoints.formats import open_checkpoint

    return _agreeing(options, open_checkpoint(path), f"--checkpoint {path}", warn)


def _built_in(
    options: WeightOptions, preset: str, file: str, warn: Callable[[str], object]
) -> Checkpoint:
    """Open the weights that ship with a preset, with their own gamma and timestep."""
    from glesam_export.checkpoints.packed_file import PackedCheckpoint

    path = Path(__file__).parent / file
    if not path.is_file():
        raise InputError(
            f"this installation holds no weights for {preset} ({path}); "
            "install it again or pass --checkpoint PATH"
        )
    packed = PackedCheckpoint(path, origin=BUILT_IN)
    return _agreeing(options, packed, f"{preset}'s built-in checkpoint", warn)


def _agreeing(
    options: WeightOptions, checkpoint: Checkpoint, name: str, warn: Callable[[str], object]
) -> Checkpoint:
    """Return the checkpoint, unless an option contradicts it.

    Another input is possible, because the weights run with either. It is a warning.
    """
    own = {
        "preset": checkpoint.preset.name,
        "unet": checkpoint.unet.name,
        "gamma": checkpoint.gamma,
        "timestep": checkpoint.timestep,
    }
    for option, value in own.items():
        given = getattr(options, option)
        if given not in (None, value):
            raise InputError(f"--{option} {given}: {name} is for {value}; leave it out")
    trained_with = checkpoint.preset.input
    checkpoint.preset = with_input(checkpoint.preset, options.input)
    if checkpoint.preset.input != trained_with:
        warn(
            f"--input {options.input}: {name} was trained with the input {trained_with!r}; masks "
            "may be less accurate with another one"
        )
    return checkpoint
