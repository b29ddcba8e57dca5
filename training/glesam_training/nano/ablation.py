"""Train nano's Algorithm 1 with one thing varied: gamma, rank, levels, recipe, input, or its parts.

SAM and the base U-Net are those of the built-in nano. Only stage 1 is trained, once for each
variant and seed, on the same pictures and with the same prompts.
"""

from __future__ import annotations

import copy
import json
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from glesam_export.checkpoints import Checkpoint, write
from glesam_export.enhancer.reference import Enhancer
from glesam_export.families import InputName, with_input
from glesam_runtime.staging import staged_file
from glesam_training.nano.recipe import Recipe
from glesam_training.nano.scenes import WideScenes
from glesam_training.nano.starting_point import fit_ends, pairs_of
from glesam_training.nano.steps import paint_scenes, stage_jobs
from glesam_training.nano.variants import Variant, new_enhancer
from glesam_training.objectives import train_adapters
from glesam_training.progress_display import ShowProgress
from glesam_training.train import stored_latents, train_enhancer
from glesam_training.trained_checkpoint import TrainedCheckpoint

COST_FILE, FITTED_FILE = "cost.json", "fitted.safetensors"


@dataclass(frozen=True)
class Cost:
    """The cost of a training (the paper's Table 9).

    Attributes:
        parameters: number of trained parameters.
        seconds: mean time of an iteration.
        memory: peak memory in GiB: the GPU's, or the process's on a CPU, where it includes what
            earlier trainings of the process left.
    """

    parameters: int
    seconds: float
    memory: float | None


def prepared(checkpoint: Checkpoint, name: InputName) -> Checkpoint:
    """Return the checkpoint with another input, sharing its weights."""
    other = copy.copy(checkpoint)
    other.preset = with_input(checkpoint.preset, name)
    return other


def train_variant(
    base: Checkpoint, variant: Variant, recipe: Recipe, folder: Path, seed: int, show: ShowProgress
) -> tuple[Checkpoint, Cost]:
    """Train stage 1 of one variant, unless the folder holds the result.

    Args:
        base: the model whose SAM and base U-Net are used.
        variant: what is different.
        recipe: sizes and lengths.
        folder: for scenes, latents and states.
        seed: seed of Algorithm 1.
        show: called with the progress.
    """
    recipe = replace(recipe, scenes=recipe.pictures, levels=variant.levels)
    recipe = replace(recipe, degradations=variant.recipe)
    scenes = paint_scenes(folder, recipe, 0, show)
    if variant.wide:
        scenes = WideScenes(scenes.path, scenes.first, len(scenes))
    settings = replace(recipe.enhancer, seed=seed)
    job = stage_jobs(folder, scenes, recipe, settings, show)(f"{variant.key}-seed-{seed}")
    base = prepared(base, variant.input)
    enhancer = new_enhancer(base, variant, seed)
    start = TrainedCheckpoint(base, enhancer)
    latents = stored_latents(start, job, high_res=True)
    job.folder.mkdir(parents=True, exist_ok=True)
    fitted = job.folder / FITTED_FILE
    if variant.fitted and not fitted.is_file():
        fit_ends(enhancer, pairs_of(latents, recipe.fit_pairs, seed), seed)
        write.save_lora(fitted, enhancer.unet)
    elif variant.fitted:
        _read_adapters(enhancer, fitted)
    path = job.folder / COST_FILE
    _forget_peak()
    began = time.perf_counter()
    trained = train_enhancer(start, job, recipe.mask_weight)
    seconds = (time.perf_counter() - began) / settings.iterations
    if not path.is_file():  # otherwise the training was found and took no time
        train_adapters(trained)
        count = sum(p.numel() for p in trained.parameters() if p.requires_grad)
        trained.requires_grad_(False)
        with staged_file(path) as partial:
            partial.write_text(json.dumps(asdict(Cost(count, seconds, _peak()))), encoding="utf-8")
    cost = Cost(**json.loads(path.read_text(encoding="utf-8")))
    return TrainedCheckpoint(base, trained), cost


def _read_adapters(enhancer: Enhancer, path: Path) -> None:
    """Read what a training started from, which another machine may fit with other last bits."""
    stored = load_file(path)
    for name, (a, b, _) in write.adapters(enhancer.unet).items():
        a.copy_(stored[f"unet.{name}.lora_A.weight"])
        b.copy_(stored[f"unet.{name}.lora_B.weight"])


def _forget_peak() -> None:
    """Start a new measurement of peak memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # `_peak` then returns the peak of the process so far, or None
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> float | None:
    """Return the peak memory in GiB since the last measurement began; None if it is not known."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii"))
    return int(found[1]) / 2**20 if found else None
