"""Make nano from one seed: scenes, SAM-nano, its diffusion base, then Algorithm 1.

Each step leaves its result in the folder and is skipped if the result is already there, so that an
interrupted run resumes where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from glesam_evaluation.datasets import Dataset
from glesam_export.checkpoints import write
from glesam_export.checkpoints.formats import open_checkpoint
from glesam_export.checkpoints.packed_file import pack
from glesam_export.checkpoints.stable_diffusion import SCHEDULE
from glesam_export.presets import sam_preset, unet_preset
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_training.examples import ExampleOptions, prompts_for
from glesam_training.loop import Report, run_training
from glesam_training.nano.diffusion import (
    Crops,
    DiffusionObjective,
    PatchAutoencoder,
    build_base,
)
from glesam_training.nano.distillation import LatentObjective, SamePictures, copy_decoder
from glesam_training.nano.recipe import Recipe
from glesam_training.nano.sam import (
    BALANCED_SHARE,
    FOCAL_ALPHA,
    ClearExamples,
    SamNano,
    SamObjective,
)
from glesam_training.nano.scenes import StoredScenes, Varied, store_scenes
from glesam_training.nano.starting_point import UNET, starting_checkpoint
from glesam_training.progress_display import ShowProgress
from glesam_training.settings import TrainingSettings
from glesam_training.train import Job, named_job, train_decoder, train_enhancer
from glesam_training.trained_checkpoint import TrainedCheckpoint, sam_file, write_checkpoint
from glesam_training.training_record import example_record, fact, weights_fact

SD_FOLDER, TEXT_FILE = "sd", "prompt_embeds.safetensors"

SCENES_A_SEED = 1_000_000
"""Number of scene seeds that belong to one seed of nano; the last of them are held out."""

FAR = 0.5
"""Share of background points that lie anywhere in the picture, when their embedding is trained."""


def paint_scenes(folder: Path, recipe: Recipe, seed: int, show: ShowProgress) -> StoredScenes:
    """Return the scenes that everything is trained on; other seeds have other scenes."""
    side = sam_preset(recipe.preset).image_size
    painted = 0

    def progress(count: int) -> None:
        nonlocal painted
        painted += count
        show("scenes", painted, recipe.scenes, {})

    return store_scenes(folder, recipe.scenes, seed * SCENES_A_SEED, side, progress)


def make_sam(
    folder: Path, scenes: StoredScenes, recipe: Recipe, seed: int, show: ShowProgress
) -> Path:
    """Train SAM-nano on clear scenes, then on varied ones, and return its file."""
    preset = sam_preset(recipe.preset)
    path = folder / sam_file(preset)
    if not path.is_file():
        torch.manual_seed(seed)
        sam = SamNano(preset)
        copies = -(-recipe.varied.iterations * recipe.varied.batch // len(scenes))
        varied = Varied(scenes, copies, seed)
        if recipe.distilled is None:
            _train_sam(sam, "sam", scenes, recipe.sam, folder, seed, show)
        else:
            _distil(sam, varied, recipe.distilled, folder, seed, show)
        _train_sam(sam, "varied", varied, recipe.varied, folder, seed, show)
        write.save_sam(path, preset, sam.encoder, sam.decoder)
    return path


def _train_sam(
    sam: SamNano,
    step: Literal["sam", "varied"],
    dataset: Dataset,
    settings: TrainingSettings,
    folder: Path,
    seed: int,
    show: ShowProgress,
) -> None:
    """Train all of a SAM on clear pictures, in place."""
    preset = sam.preset
    options = ExampleOptions(seed=seed)
    examples = ClearExamples(dataset, preset, settings.iterations * settings.batch, options)
    made_of = {
        "step": fact(step),
        "weights at the start": weights_fact(sam.state_dict()),
        **example_record(dataset, options, replace(settings, seed=seed)),
    }
    run_training(
        SamObjective(sam, balanced=BALANCED_SHARE if step == "sam" else 0),
        examples,
        replace(settings, seed=seed),
        folder / step,
        _reporter(show, "SAM-nano" if step == "sam" else "SAM-nano, varied"),
        prompts_for(preset),
        made_of=made_of,
    )


def _distil(
    sam: SamNano,
    pictures: Varied,
    settings: TrainingSettings,
    folder: Path,
    seed: int,
    show: ShowProgress,
) -> None:
    """Start a SAM 2 from the nano that ships, in place."""
    teacher = make_checkpoint(WeightOptions("nano"))
    copy_decoder(sam, teacher.decoder())
    count = settings.iterations * settings.batch
    made_of = {
        "step": fact("distilled"),
        "weights at the start": weights_fact(sam.state_dict()),
        "DATA": fact(pictures.fingerprint),
    }
    run_training(
        LatentObjective(sam, teacher.encoder()),
        SamePictures(pictures, sam.preset, teacher.preset, count, seed),
        replace(settings, seed=seed),
        folder / "distilled",
        _reporter(show, "nano's latents"),
        made_of=made_of,
    )


def make_base(
    folder: Path, scenes: StoredScenes, settings: TrainingSettings, crop: int, show: ShowProgress
) -> tuple[Path, Path]:
    """Train the diffusion base and return its diffusers folder and the text embedding c."""
    sd, text_path = folder / SD_FOLDER, folder / TEXT_FILE
    schedule = sd / "scheduler" / "scheduler_config.json"
    if not schedule.is_file():
        unet, text = build_base(unet_preset(UNET), settings.seed)
        objective = DiffusionObjective(PatchAutoencoder(scenes, settings.seed), unet, text)
        crops = Crops(scenes, settings.iterations * settings.batch, crop, settings.seed)
        made_of = {"step": fact("base"), "DATA": fact(scenes.fingerprint), "crop": fact(crop)}
        report = _reporter(show, "base U-Net")
        run_training(objective, crops, settings, folder / "base", report, made_of=made_of)
        unet.save_pretrained(sd / "unet")
        write.save_prompt_embeds(text_path, text)
        # Written last: it marks the folder as complete.
        schedule.parent.mkdir(parents=True, exist_ok=True)
        schedule.write_text(json.dumps(dict(SCHEDULE), indent=2), encoding="utf-8")
    return sd, text_path


def stage_jobs(
    folder: Path,
    scenes: StoredScenes,
    recipe: Recipe,
    settings: TrainingSettings,
    show: ShowProgress,
    far: float = 0.0,
) -> Callable[[str], Job]:
    """Return a maker of named jobs of Algorithm 1, on stored latents of varied scenes."""
    options = ExampleOptions(
        seed=settings.seed,
        low_seed=0,
        levels=recipe.levels,
        recipe=recipe.degradations,
        variants=recipe.variants,
        masks=recipe.masks,
        far=far,
    )
    pictures = Varied(scenes.first_pictures(recipe.pictures), 1, scenes.first)
    return lambda name: named_job(
        *(name, pictures, settings, options, folder / name, folder / "latents", show), FOCAL_ALPHA
    )


def make_nano(folder: Path, recipe: Recipe, seed: int, show: ShowProgress) -> Path:
    """Make nano, skipping the steps whose results are in the folder.

    Args:
        folder: for all results and states.
        recipe: sizes and lengths.
        seed: seed of everything.
        show: called with each step's progress.

    Returns:
        The packed checkpoint, float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scenes = paint_scenes(folder, recipe, seed, show)
    sam = make_sam(folder, scenes, recipe, seed, show)
    base = make_base(folder, scenes, replace(recipe.base, seed=seed), recipe.crop, show)
    stage_1 = stage_jobs(folder, scenes, recipe, replace(recipe.enhancer, seed=seed), show)
    learn = stage_1("enhancer")
    preset = sam_preset(recipe.preset)
    start = starting_checkpoint(folder, sam, base, seed, learn, recipe.fit_pairs, preset)
    enhancer = train_enhancer(start, learn, recipe.mask_weight)
    decoder = None
    if recipe.tune_decoder:
        stage_2 = stage_jobs(folder, scenes, recipe, replace(recipe.decoder, seed=seed), show)
        decoder = train_decoder(TrainedCheckpoint(start, enhancer), stage_2("decoder"), "all")
    last = stage_jobs(folder, scenes, recipe, replace(recipe.background, seed=seed), show, FAR)
    tuned = TrainedCheckpoint(start, enhancer, decoder)
    decoder = train_decoder(tuned, last("background"), "background")
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(exist_ok=True)
    write_checkpoint(start, checkpoint, enhancer, decoder)
    packed = folder / f"{preset.name}.safetensors"
    pack(open_checkpoint(checkpoint), packed, origin=f"glesam-train {preset.name}, seed {seed}")
    return packed


def _reporter(show: ShowProgress, name: str) -> Report:
    return lambda done, total, losses: show(name, done, total, losses)
