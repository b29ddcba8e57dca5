"""Train a checkpoint on images with masks (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from accelerate import PartialState
from torch import Tensor

from glesam_evaluation.datasets import Dataset
from glesam_export.checkpoints import Checkpoint
from glesam_export.enhancer.reference import Enhancer, build_unet
from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_export.presets import LORA_TARGETS, UNetPreset
from glesam_runtime.interface import LATENT_CHANNELS
from glesam_training.examples import CORRECTED, PROMPTS, ExampleOptions, Examples, prompts_for
from glesam_training.latents import StoredLatents, store_latents
from glesam_training.loop import Objective, Report, run_training
from glesam_training.objectives import (
    FOCAL_ALPHA,
    SAMS_WEIGHTS,
    DecoderObjective,
    DecoderPart,
    EnhancerObjective,
    LossWeights,
)
from glesam_training.progress_display import ShowProgress
from glesam_training.saved_state import read_state
from glesam_training.settings import TrainingSettings, worker_count
from glesam_training.training_record import Record, checkpoint_record, example_record, fact


@dataclass(frozen=True)
class Job:
    """One stage's training data and settings, and the folders of its files.

    Attributes:
        dataset: pictures with masks.
        settings: how long and how fast to train.
        examples: what is drawn from the pictures.
        folder: for the state and the logs.
        latents: a folder for stored latents, so that the encoder runs once per picture; None
            encodes every example.
        report: called with the losses.
        encoded: called with the number of pictures whose latents were stored.
        focal_alpha: weight of the object's pixels in mask losses.
        loss_weights: weights of Dice and the focal loss in mask losses.
    """

    dataset: Dataset
    settings: TrainingSettings
    examples: ExampleOptions
    folder: Path
    latents: Path | None = None
    report: Report = lambda _done, _total, _losses: None
    encoded: Callable[[int, int], object] = lambda _done, _total: None
    focal_alpha: float = FOCAL_ALPHA
    loss_weights: LossWeights = SAMS_WEIGHTS


def named_job(
    name: str,
    dataset: Dataset,
    settings: TrainingSettings,
    examples: ExampleOptions,
    folder: Path,
    latents: Path | None,
    show: ShowProgress,
    focal_alpha: float = FOCAL_ALPHA,
    loss_weights: LossWeights = SAMS_WEIGHTS,
) -> Job:
    """Return a job whose progress is shown under a name."""
    return Job(
        dataset,
        settings,
        examples,
        folder,
        latents,
        lambda done, total, losses: show(name, done, total, losses),
        lambda done, total: show("latents", done, total, {}),
        focal_alpha,
        loss_weights,
    )


def train_enhancer(
    checkpoint: Checkpoint,
    job: Job,
    mask_weight: float = 0.0,
    saved: Callable[[Enhancer], object] = lambda _: None,
) -> Enhancer:
    """Train the adapters by the MSE to the clear image's latent (stage 1).

    Args:
        checkpoint: the GleSAM to start from; `new_adapters` makes its first adapters.
        job: what to train on.
        mask_weight: weight of the mask loss through the frozen decoder; 0 is the paper's stage 1.
        saved: called with the enhancer after each saved state.

    Returns:
        The trained enhancer.

    Raises:
        InputError: the folder's state does not fit.
    """
    enhancer = checkpoint.enhancer()
    decoder = checkpoint.decoder() if mask_weight else None
    encoder = None if job.latents else checkpoint.encoder()
    objective = EnhancerObjective(
        encoder, enhancer, decoder, mask_weight, job.focal_alpha, job.loss_weights
    )
    made_of = {"stage": fact("enhancer"), "--mask-loss": fact(float(mask_weight))}
    masks = decoder is not None
    _train(checkpoint, objective, job, lambda: saved(enhancer), made_of, masks=masks)
    return enhancer.requires_grad_(False)


def train_decoder(
    checkpoint: Checkpoint,
    job: Job,
    part: DecoderPart,
    *,
    enhance: bool = True,
    saved: Callable[[ReferenceDecoder], object] = lambda _: None,
) -> ReferenceDecoder:
    """Train the decoder on enhanced latents (stage 2).

    Args:
        checkpoint: the GleSAM of stage 1.
        job: what to train on.
        part: the mask tokens (FT-T), all but the IoU head (FT-D), or the embedding of background
            points; for the last, every prompt has such points.
        enhance: False trains on latents that are not enhanced: the control.
        saved: called with the decoder after each saved state.

    Returns:
        The trained decoder.

    Raises:
        InputError: the folder's state does not fit.
    """
    decoder = checkpoint.decoder()
    enhancer = checkpoint.enhancer() if enhance else None
    encoder = None if job.latents else checkpoint.encoder()
    objective = DecoderObjective(
        encoder, enhancer, decoder, part, job.focal_alpha, job.loss_weights
    )
    kinds = CORRECTED if part == "background" else PROMPTS
    made_of = {
        "stage": fact("decoder"),
        "trained part": fact(part),
        "--no-enhance": fact(not enhance),
    }
    _train(checkpoint, objective, job, lambda: saved(decoder), made_of, kinds, masks=True)
    return decoder.requires_grad_(False)


def new_adapters(
    preset: UNetPreset,
    rank: int,
    seed: int,
    ranks: Mapping[str, int] = MappingProxyType({}),
    alpha: float | None = None,
    channels: int = LATENT_CHANNELS,
) -> dict[str, Tensor]:
    """Return adapters without effect, in the released format: A random, B zero.

    Args:
        preset: the U-Net.
        rank: r (paper, Table 8: 4, 8 or 16).
        seed: seed of A.
        ranks: other ranks for some layers, by module path.
        alpha: alpha of every layer; None is the rank of each layer.
        channels: input and output channels of the U-Net.

    Raises:
        ValueError: `ranks` names a layer that is not adapted.
    """
    with torch.device("meta"):
        unet = build_unet(preset, channels)
    generator = torch.Generator().manual_seed(seed)
    factors: dict[str, Tensor] = {}
    for name, layer in unet.named_modules():
        if not any(name == ending or name.endswith("." + ending) for ending in LORA_TARGETS):
            continue
        shape, r = layer.weight.shape, ranks.get(name, rank)
        bound = (3 / shape[1:].numel()) ** 0.5
        a = torch.empty(r, *shape[1:]).uniform_(-bound, bound, generator=generator)
        factors[f"unet.{name}.lora_A.weight"] = a
        factors[f"unet.{name}.lora_B.weight"] = torch.zeros(shape[0], r, *[1] * (len(shape) - 2))
        factors[f"unet.{name}.alpha"] = torch.tensor(float(r if alpha is None else alpha))
    if strangers := [name for name in ranks if f"unet.{name}.lora_A.weight" not in factors]:
        raise ValueError(f"{strangers[0]}: not a layer of this U-Net that adapters are added to")
    return factors


def stored_latents(checkpoint: Checkpoint, job: Job, high_res: bool = False) -> StoredLatents:
    """Return a job's examples with their latents, encoding them unless they are stored already.

    Args:
        checkpoint: the checkpoint whose encoder is used.
        job: a job with a folder for latents.
        high_res: whether the high-resolution features are stored too, if the family has them.

    Raises:
        InputError: the number of degraded versions is not fixed.
        ValueError: the job has no folder for latents.
    """
    if job.latents is None:
        raise ValueError("this job has no folder for latents; set latents")
    encoder = checkpoint.encoder().to(PartialState().device)
    helpers = worker_count(job.settings.workers)
    examples = _examples(checkpoint, job)
    return store_latents(job.latents, encoder, examples, helpers, job.encoded, high_res)


def _examples(checkpoint: Checkpoint, job: Job) -> Examples:
    count = job.settings.iterations * job.settings.batch
    return Examples(job.dataset, checkpoint.preset, count, job.examples)


def _train(
    checkpoint: Checkpoint,
    objective: Objective,
    job: Job,
    saved: Callable[[], object],
    made_of: Record,
    kinds: Sequence[str] = PROMPTS,
    *,
    masks: bool,
) -> None:
    """Run a stage's loop on images, or on their stored latents.

    `masks` says whether the loss needs the decoder, and with it the high-resolution features.
    """
    collate = prompts_for(checkpoint.preset, kinds, job.settings.batch)
    record = {
        **made_of,
        **checkpoint_record(checkpoint, job.folder),
        **example_record(job.dataset, job.examples, job.settings),
        "--keep-latents": fact("no" if job.latents is None else "yes"),
        "alpha of the focal loss": fact(job.focal_alpha),
        "--loss-weights": fact(job.loss_weights.words),
    }
    if job.latents:
        # Encoding may take hours, so a state of another training is refused before it.
        read_state(job.folder, job.settings, record, objective.uses_progress)
        examples: Examples = stored_latents(checkpoint, job, high_res=masks)
    else:
        examples = _examples(checkpoint, job)
    run_training(
        *(objective.eval(), examples, job.settings, job.folder, job.report, collate, saved, record)
    )
