"""Which weights a command line asks for: files, a checkpoint, a seed, or a preset's own.

Nothing here loads torch: a wrong option is reported before seconds are spent on it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_export.presets import Preset, UNetPreset, sam_preset, unet_preset
from glesam_export.weight_options import WeightOptions
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import Manifest

if TYPE_CHECKING:
    from glesam_export.checkpoints import Checkpoint

PAPER_GAMMA, PAPER_TIMESTEP = 5.0, 999
"""For random weights, which were trained with nothing."""

BUILT_IN = "built-in"
"""What the manifest says of weights that a preset brings along."""


def make_checkpoint(options: WeightOptions) -> Checkpoint:
    """The checkpoint that the options describe.

    Raises:
        InputError: options that are missing or contradict one another.
        CheckpointError: files that cannot be used.
    """
    if options.gamma is not None and not (math.isfinite(options.gamma) and options.gamma > 0):
        raise InputError(f"--gamma {options.gamma:g}: must be a positive number")
    first, *others = options.given_weights or [""]
    if others and first in ("--checkpoint", "--random-weights"):
        raise InputError(f"{first} and {others[0]} exclude each other")
    if options.checkpoint is not None:
        return _saved(options, options.checkpoint)
    if options.given_files:
        return _from_files(options)
    if options.preset is None:
        raise InputError(
            "neither weights nor a --preset given; pass --checkpoint PATH, or files by --sam, --sd "
            "and --lora, or --preset nano for the built-in model"
        )
    preset = sam_preset(options.preset)
    unet = unet_preset(options.unet or preset.default_unet)
    if options.random_weights is not None:
        return _from_seed(options, options.random_weights, preset, unet)
    if preset.builtin is not None:
        return _built_in(options, preset.name, preset.builtin)
    raise InputError(
        f"no weights for {preset.name}: pass --checkpoint PATH, --sam FILE --sd FOLDER --lora FILE "
        "--gamma G --timestep T, or --random-weights SEED for a model that means nothing"
    )


def detected(options: WeightOptions) -> WeightOptions:
    """The options with the presets that their files fit, where none was named.

    Raises:
        InputError: a preset that was named is unknown.
        CheckpointError: a file in another one's place, or one that fits no preset.
    """
    from glesam_export.checkpoints.diffusion import open_base
    from glesam_export.checkpoints.expect import detect_sam, require

    preset, unet = options.preset, options.unet
    if preset is not None:
        sam_preset(preset)
        if options.sam is not None:
            require(options.sam, "--sam", "sam")
    elif options.sam is not None:
        preset = detect_sam(options.sam).name
    if options.lora is not None:
        require(options.lora, "--lora", "lora")
    if options.sd is not None and options.sd.is_file():
        require(options.sd, "--sd", "unet")
    if unet is not None:
        unet_preset(unet)
    elif options.sd is not None:
        unet = open_base(options.sd, options.unet_config).preset.name
    return replace(options, preset=preset, unet=unet)


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
    if not options.given_weights and origin != BUILT_IN:
        raise InputError(f"the bundle's weights were {origin}; pass the same weight options")
    return replace(
        options,
        preset=model.preset,
        unet=model.unet,
        gamma=model.gamma,
        timestep=model.timestep,
    )


def _from_files(options: WeightOptions) -> Checkpoint:
    """Weights from the user's files: all of them, with what the LoRA was trained with."""
    if options.sam is None or options.sd is None or options.lora is None:
        missing = [name for name in ("--sam", "--sd", "--lora") if name not in options.given_files]
        raise InputError(f"{' and '.join(missing)} missing beside {', '.join(options.given_files)}")
    if options.gamma is None or options.timestep is None:
        raise InputError(
            "--gamma and --timestep must be given with weights from files: the paper trains with "
            "5 and 999, released code with 3 or 5 and 1, and a wrong pair is silent garbage"
        )
    from glesam_export.checkpoints.files import FileCheckpoint, WeightFiles

    known = detected(options)
    assert known.preset is not None, "the files say"
    assert known.unet is not None, "the files say"
    weights = WeightFiles(
        options.sam, options.sd, options.lora, options.prompt_embeds, options.unet_config
    )
    preset, unet = sam_preset(known.preset), unet_preset(known.unet)
    return FileCheckpoint(weights, preset, unet, options.gamma, options.timestep)


def _from_seed(options: WeightOptions, seed: int, preset: Preset, unet: UNetPreset) -> Checkpoint:
    """Random weights, asked for by seed."""
    from glesam_export.checkpoints.random import RandomCheckpoint

    if not 0 <= seed < 2**31:
        raise InputError(f"--random-weights {seed}: pass a seed from 0 to {2**31 - 1}")
    gamma = PAPER_GAMMA if options.gamma is None else options.gamma
    timestep = PAPER_TIMESTEP if options.timestep is None else options.timestep
    return RandomCheckpoint(seed, preset, unet, gamma, timestep)


def _saved(options: WeightOptions, path: Path) -> Checkpoint:
    """Weights from a checkpoint folder or a packed file, which knows what goes with them."""
    from glesam_export.checkpoints.saved import open_checkpoint

    return _agreeing(options, open_checkpoint(path), f"--checkpoint {path}")


def _built_in(options: WeightOptions, preset: str, file: str) -> Checkpoint:
    """The weights that a preset brings along, with their own gamma and timestep."""
    from glesam_export.checkpoints.packed import PackedCheckpoint

    path = Path(__file__).parent / file
    if not path.is_file():
        raise InputError(
            f"this installation holds no weights for {preset} ({path}); "
            "install it again or pass --checkpoint PATH"
        )
    packed = PackedCheckpoint(path, origin=BUILT_IN)
    return _agreeing(options, packed, f"{preset}'s built-in checkpoint")


def _agreeing(options: WeightOptions, checkpoint: Checkpoint, name: str) -> Checkpoint:
    """The checkpoint, unless an option says otherwise than it does."""
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
    return checkpoint
