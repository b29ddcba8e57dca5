"""How nano is made, from one seed: scenes, SAM-nano, its diffusion base, then Algorithm 1.

Each step leaves its result in the folder and is passed over when it is found there, so that a run
that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from glesam_export.checkpoints import write
from glesam_export.checkpoints.diffusion import SCHEDULE
from glesam_export.checkpoints.packed import pack
from glesam_export.checkpoints.saved import open_checkpoint
from glesam_export.presets import SAM_PRESETS, unet_preset
from glesam_training.examples import CLEAR, ExampleOptions, with_prompts
from glesam_training.loop import Report, run
from glesam_training.nano.diffusion import (
    Crops,
    DiffusionObjective,
    PatchAutoencoder,
    build_base,
)
from glesam_training.nano.sam import (
    BALANCED_SHARE,
    FOCAL_ALPHA,
    ClearExamples,
    SamNano,
    SamObjective,
)
from glesam_training.nano.scenes import StoredScenes, Varied, store_scenes
from glesam_training.nano.start import PRESET, begin
from glesam_training.plan import Plan
from glesam_training.progress import Narrate
from glesam_training.train import Job, job, train_decoder, train_enhancer
from glesam_training.trained import SAM_FILE, TrainedCheckpoint, write_checkpoint

SCENES_A_SEED = 1_000_000
"""Seeds of scenes that belong to one seed of nano; the last of them are held out."""

FAR = 0.5
"""Share of background points anywhere in the picture, when their embedding is trained."""


@dataclass(frozen=True)
class Recipe:
    """Sizes and lengths of every step."""

    scenes: int
    pictures: int
    """Of the scenes, those that Algorithm 1 sees, each in `variants` low versions."""
    variants: int
    levels: tuple[int, ...]
    sam: Plan
    """SAM-nano on scenes as they are painted."""
    varied: Plan
    """SAM-nano further, on scenes turned, mirrored, and seen with less colour and light."""
    base: Plan
    fit_pairs: int
    """Pairs of latents that the adapters' ends are fitted to."""
    enhancer: Plan
    decoder: Plan
    background: Plan
    """The embedding of background points, last: SAM-nano saw such points near an object only, and
    lost the object where they are far from it."""
    mask_weight: float
    masks: int = 2
    """A picture, in Algorithm 1."""
    tune_decoder: bool = False
    """Whether what is packed has gone through stage 2. On SAM-nano it takes back a third of the
    enhancer's gain on degraded pictures and costs half a point on clear ones (docs/nano.md)."""
    crop: int = 128
    """Pixels of the base's training images: 16 x 16 latents, as many as z_L has."""


def _plan(
    iterations: int, lr: float, warmup: int, batch: int = 16, weight_decay: float = 0.01
) -> Plan:
    """A step of nano's: bf16 where the machine has it, the learning rate falling to nothing."""
    return Plan(
        iterations=iterations,
        batch=batch,
        lr=lr,
        warmup=warmup,
        decay=True,
        weight_decay=weight_decay,
        workers=None,
        mixed_precision="auto",
    )


FULL = Recipe(
    scenes=16_000,
    pictures=2000,
    variants=4,
    levels=(CLEAR, 1, 2, 3),
    sam=_plan(900, lr=1.5e-3, warmup=100, batch=128, weight_decay=0.02),
    varied=_plan(3800, lr=1.3e-3, warmup=30, batch=128, weight_decay=0.02),
    base=_plan(600, lr=1e-3, warmup=50, batch=32),
    fit_pairs=1280,
    enhancer=_plan(2000, lr=3e-3, warmup=50),
    decoder=_plan(400, lr=2e-4, warmup=20),
    background=_plan(200, lr=0.03, warmup=20, weight_decay=0),
    mask_weight=0.2,
)
"""What ships."""


def _short(plan: Plan, iterations: int) -> Plan:
    return replace(plan, iterations=iterations, batch=16, log_every=max(1, iterations // 4))


QUICK = replace(
    FULL,
    scenes=64,
    pictures=32,
    sam=_short(FULL.sam, 24),
    varied=_short(replace(FULL.varied, warmup=0, lr=6e-4), 24),
    base=_short(FULL.base, 24),
    fit_pairs=128,
    enhancer=_short(replace(FULL.enhancer, warmup=0), 40),
    decoder=_short(replace(FULL.decoder, warmup=0, lr=1e-3), 40),
    background=_short(FULL.background, 24),
    tune_decoder=True,
)
"""The same steps in two minutes, to see that every loss falls."""


TABLE = replace(
    FULL,
    enhancer=replace(FULL.enhancer, iterations=500, batch=8),
    decoder=replace(FULL.decoder, iterations=200, batch=8),
)
"""Algorithm 1 shorter, so that every row of the paper's Table 5 is trained for three seeds."""


PACKED_FILE = "nano.safetensors"
SD_FOLDER, TEXT_FILE = "sd", "prompt_embeds.safetensors"


def paint(folder: Path, recipe: Recipe, seed: int, narrate: Narrate) -> StoredScenes:
    """The scenes that everything is trained on. Other seeds have other scenes."""
    side = SAM_PRESETS[PRESET].image_size
    painted = 0

    def progress(count: int) -> None:
        nonlocal painted
        painted += count
        narrate("scenes", painted, recipe.scenes, {})

    return store_scenes(folder, recipe.scenes, seed * SCENES_A_SEED, side, progress)


def make_sam(
    folder: Path, scenes: StoredScenes, recipe: Recipe, seed: int, narrate: Narrate
) -> Path:
    """Train SAM-nano on clear scenes, first as they are, then varied; its .pth."""
    path = folder / SAM_FILE
    if not path.is_file():
        preset = SAM_PRESETS[PRESET]
        torch.manual_seed(seed)
        sam = SamNano(preset)
        copies = -(-recipe.varied.iterations * recipe.varied.batch // len(scenes))
        for name, dataset, plan in (
            ("sam", scenes, recipe.sam),
            ("varied", Varied(scenes, copies, seed), recipe.varied),
        ):
            options = ExampleOptions(seed=seed)
            examples = ClearExamples(dataset, preset, plan.iterations * plan.batch, options)
            objective = SamObjective(sam, balanced=BALANCED_SHARE if name == "sam" else 0)
            report = _told(narrate, "SAM-nano" if name == "sam" else "SAM-nano, varied")
            run(objective, examples, replace(plan, seed=seed), folder / name, report, with_prompts)
        write.save_sam(path, sam.encoder, sam.decoder)
    return path


def make_base(
    folder: Path, scenes: StoredScenes, plan: Plan, crop: int, narrate: Narrate
) -> tuple[Path, Path]:
    """Train the diffusion base; its diffusers folder and the text embedding c."""
    sd, text_path = folder / SD_FOLDER, folder / TEXT_FILE
    schedule = sd / "scheduler" / "scheduler_config.json"
    if not schedule.is_file():
        unet, text = build_base(unet_preset(PRESET), plan.seed)
        objective = DiffusionObjective(PatchAutoencoder(scenes, plan.seed), unet, text)
        crops = Crops(scenes, plan.iterations * plan.batch, crop, plan.seed)
        run(objective, crops, plan, folder / "base", _told(narrate, "base U-Net"))
        unet.save_pretrained(sd / "unet")
        write.save_prompt_embeds(text_path, text)
        # Written last: it says that the folder is whole.
        schedule.parent.mkdir(parents=True, exist_ok=True)
        schedule.write_text(json.dumps(dict(SCHEDULE), indent=2), encoding="utf-8")
    return sd, text_path


def stage(
    folder: Path,
    scenes: StoredScenes,
    recipe: Recipe,
    plan: Plan,
    narrate: Narrate,
    far: float = 0.0,
) -> Callable[[str], Job]:
    """Jobs of Algorithm 1 on stored latents of varied scenes, by name."""
    options = ExampleOptions(
        seed=plan.seed,
        low_seed=0,
        levels=recipe.levels,
        variants=recipe.variants,
        masks=recipe.masks,
        far=far,
    )
    pictures = Varied(scenes.first_pictures(recipe.pictures), 1, scenes.first)
    return lambda name: job(
        *(name, pictures, plan, options, folder / name, folder / "latents", narrate), FOCAL_ALPHA
    )


def make_nano(folder: Path, recipe: Recipe, seed: int, narrate: Narrate) -> Path:
    """Make nano whole, or the rest of it.

    Args:
        folder: of all results and states.
        recipe: sizes and lengths.
        seed: of everything.
        narrate: told how each step goes.

    Returns:
        The packed checkpoint, float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scenes = paint(folder, recipe, seed, narrate)
    sam = make_sam(folder, scenes, recipe, seed, narrate)
    base = make_base(folder, scenes, replace(recipe.base, seed=seed), recipe.crop, narrate)
    stage_1 = stage(folder, scenes, recipe, replace(recipe.enhancer, seed=seed), narrate)
    learn = stage_1("enhancer")
    start = begin(folder, sam, base, seed, learn, recipe.fit_pairs)
    enhancer = train_enhancer(start, learn, recipe.mask_weight)
    decoder = None
    if recipe.tune_decoder:
        stage_2 = stage(folder, scenes, recipe, replace(recipe.decoder, seed=seed), narrate)
        decoder = train_decoder(TrainedCheckpoint(start, enhancer), stage_2("decoder"), "all")
    last = stage(folder, scenes, recipe, replace(recipe.background, seed=seed), narrate, FAR)
    tuned = TrainedCheckpoint(start, enhancer, decoder)
    decoder = train_decoder(tuned, last("background"), "background")
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(exist_ok=True)
    write_checkpoint(start, checkpoint, enhancer, decoder)
    packed = folder / PACKED_FILE
    pack(open_checkpoint(checkpoint), packed, origin=f"glesam-train nano, seed {seed}")
    return packed


def _told(narrate: Narrate, name: str) -> Report:
    return lambda done, total, losses: narrate(name, done, total, losses)
