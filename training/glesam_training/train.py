"""Algorithm 1: from a checkpoint and images with masks to a better checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from accelerate import PartialState
from torch import Tensor

from glesam_evaluation.datasets import Dataset
from glesam_export.checkpoints import Checkpoint
from glesam_export.enhancer.reference import Enhancer, build_unet
from glesam_export.families.sam.reference import Decoder
from glesam_export.presets import LORA_TARGETS, UNetPreset
from glesam_runtime.errors import InputError
from glesam_training import workers
from glesam_training.examples import CORRECTED, PROMPTS, ExampleOptions, Examples, with_prompts
from glesam_training.latents import StoredLatents, store_latents
from glesam_training.loop import Objective, Report, run
from glesam_training.losses import FOCAL_ALPHA
from glesam_training.objectives import DecoderObjective, DecoderPart, EnhancerObjective
from glesam_training.plan import Plan
from glesam_training.progress import Narrate


@dataclass(frozen=True)
class Job:
    """Where a stage learns, and from what.

    Attributes:
        dataset: pictures with masks.
        plan: how long and how fast.
        examples: what is drawn from the pictures.
        folder: of the state and the logs.
        latents: a folder to keep latents in, so that the encoder runs once a picture; None
            encodes every example.
        report: told about the losses.
        encoded: told about the pictures whose latents were stored.
        focal_alpha: weight of the object's pixels in mask losses.
    """

    dataset: Dataset
    plan: Plan
    examples: ExampleOptions
    folder: Path
    latents: Path | None = None
    report: Report = lambda _done, _total, _losses: None
    encoded: Callable[[int, int], object] = lambda _done, _total: None
    focal_alpha: float = FOCAL_ALPHA


def job(
    name: str,
    dataset: Dataset,
    plan: Plan,
    examples: ExampleOptions,
    folder: Path,
    latents: Path | None,
    narrate: Narrate,
    focal_alpha: float = FOCAL_ALPHA,
) -> Job:
    """A job whose progress is told under a name."""
    return Job(
        dataset,
        plan,
        examples,
        folder,
        latents,
        lambda done, total, losses: narrate(name, done, total, losses),
        lambda done, total: narrate("latents", done, total, {}),
        focal_alpha,
    )


def train_enhancer(
    checkpoint: Checkpoint,
    job: Job,
    mask_weight: float = 0.0,
    saved: Callable[[Enhancer], object] = lambda _: None,
) -> Enhancer:
    """Stage 1: train the adapters, by the MSE to the clear image's latent.

    Args:
        checkpoint: the GleSAM to begin with; `new_adapters` makes those it has at first.
        job: where and from what.
        mask_weight: of the mask loss through the frozen decoder; 0 is the paper's stage 1.
        saved: given the enhancer whenever the state was saved.

    Returns:
        The trained enhancer.

    Raises:
        InputError: a state in the folder that does not fit, or a mask loss with SAM 2.
    """
    enhancer = checkpoint.enhancer()
    decoder = _sams_decoder(checkpoint) if mask_weight else None
    encoder = None if job.latents else checkpoint.encoder()
    objective = EnhancerObjective(encoder, enhancer, decoder, mask_weight, job.focal_alpha)
    _train(checkpoint, objective, job, lambda: saved(enhancer))
    return enhancer.requires_grad_(False)


def train_decoder(
    checkpoint: Checkpoint,
    job: Job,
    part: DecoderPart,
    *,
    enhance: bool = True,
    saved: Callable[[Decoder], object] = lambda _: None,
) -> Decoder:
    """Stage 2: train the decoder on enhanced latents.

    Args:
        checkpoint: the GleSAM of stage 1.
        job: where and from what.
        part: the mask tokens (FT-T), all but the IoU head (FT-D), or the embedding of background
            points, which every prompt then has.
        enhance: False trains on latents as they are: the control.
        saved: given the decoder whenever the state was saved.

    Returns:
        The trained decoder.

    Raises:
        InputError: a state in the folder that does not fit, or a SAM 2.
    """
    decoder = _sams_decoder(checkpoint)
    enhancer = checkpoint.enhancer() if enhance else None
    encoder = None if job.latents else checkpoint.encoder()
    objective = DecoderObjective(encoder, enhancer, decoder, part, job.focal_alpha)
    kinds = CORRECTED if part == "background" else PROMPTS
    _train(checkpoint, objective, job, lambda: saved(decoder), kinds)
    return decoder.requires_grad_(False)


def new_adapters(
    preset: UNetPreset, rank: int, seed: int, ranks: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Tensor]:
    """Adapters that change nothing yet, in the released format: A random, B zero, alpha = rank.

    Args:
        preset: the U-Net.
        rank: r (paper, Table 8: 4, 8 or 16).
        seed: of A.
        ranks: of layers that have another, by module path.

    Raises:
        ValueError: another rank for a layer that is not adapted.
    """
    with torch.device("meta"):
        unet = build_unet(preset)
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
    if strangers := [name for name in ranks if f"unet.{name}.lora_A.weight" not in factors]:
        raise ValueError(f"{strangers[0]}: no layer of this U-Net that adapters go to")
    return factors


def stored_latents(checkpoint: Checkpoint, job: Job) -> StoredLatents:
    """A job's examples with their latents, encoded now or found encoded.

    Args:
        checkpoint: whose encoder it is.
        job: keeps latents in a folder.

    Raises:
        InputError: no number of low versions.
        ValueError: a job that does not keep latents.
    """
    if job.latents is None:
        raise ValueError("this job keeps no latents")
    encoder = checkpoint.encoder().to(PartialState().device)
    helpers = workers.chosen(job.plan.workers)
    return store_latents(job.latents, encoder, _examples(checkpoint, job), helpers, job.encoded)


def _examples(checkpoint: Checkpoint, job: Job) -> Examples:
    count = job.plan.iterations * job.plan.batch
    return Examples(job.dataset, checkpoint.preset, count, job.examples)


def _sams_decoder(checkpoint: Checkpoint) -> Decoder:
    """The decoder, if this program trains its kind."""
    decoder = checkpoint.decoder()
    if not isinstance(decoder, Decoder):
        raise InputError(
            f"{checkpoint.preset.name}: only SAM's decoder is trained here; train the enhancer "
            "of SAM 2, by the paper's loss, and leave its decoder as it is"
        )
    return decoder


def _train(
    checkpoint: Checkpoint,
    objective: Objective,
    job: Job,
    saved: Callable[[], object],
    kinds: Sequence[str] = PROMPTS,
) -> None:
    """Run a stage's loop on images, or on their stored latents."""
    collate = partial(with_prompts, kinds=kinds)
    examples = stored_latents(checkpoint, job) if job.latents else _examples(checkpoint, job)
    run(objective.eval(), examples, job.plan, job.folder, job.report, collate, saved)
