"""Record everything that changes the result of a training, so that a resume can compare it.

A record does not hold what may change: paths, workers, device, intervals of saving and reporting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from glesam_evaluation.datasets import Dataset
from glesam_export.checkpoints import Checkpoint, write
from glesam_export.checkpoints.separate_files import FileCheckpoint
from glesam_export.enhancer.reference import Enhancer
from glesam_training.examples import DRAWN, ExampleOptions
from glesam_training.settings import TrainingSettings, precision_to_use
from glesam_training.trained_checkpoint import START_FILE, TrainedCheckpoint

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Fact:
    """One thing that changes the result.

    Attributes:
        value: what is compared.
        words: how a message shows it.
    """

    value: Value
    words: str

    def agrees(self, other: Fact) -> bool:
        """Return whether both give the same training."""
        # "auto" lets the device decide about precision, and the device may change.
        return self.value == other.value or self.words == other.words == "auto"


Record = Mapping[str, Fact]
"""Facts by the option that sets them, or by a description of what no option sets."""

ABSENT = Fact(None, "unset")


def fact(value: Value) -> Fact:
    """Return the fact of a plain value."""
    return Fact(value, "none" if value is None else str(value))


BEFORE: Record = {
    "--warmup": fact(0),
    "--recipe": fact("paper"),
    "--input": fact("sam"),
    "--loss-weights": fact("1:20"),
    "--alpha": fact("as --rank"),
    "--prediction-type": fact("epsilon"),
}
"""What a saved state means that does not record a fact: the value before there was an option."""


def settings_record(settings: TrainingSettings) -> dict[str, Fact]:
    """Return what the loop's settings decide; precision is what "auto" becomes on this device."""
    options = ("iterations", "batch", "lr", "seed", "warmup")
    others = ("decay", "weight_decay", "clip")
    values = asdict(settings)
    record = {f"--{name}": fact(values[name]) for name in options}
    record |= {name.replace("_", " "): fact(values[name]) for name in others}
    wanted = settings.mixed_precision
    return record | {"--mixed-precision": Fact(precision_to_use(wanted), wanted)}


def example_record(
    dataset: Dataset, options: ExampleOptions, settings: TrainingSettings
) -> dict[str, Fact]:
    """Return what decides the examples: data, masks, degradations and prompts.

    Args:
        dataset: pictures with masks.
        options: what is drawn from them.
        settings: seeds that equal this training's seed are not listed a second time.
    """
    low_seed = options.seed if options.low_seed is None else options.low_seed

    def seed(value: int) -> Fact:
        return Fact("as --seed", "as --seed") if value == settings.seed else fact(value)

    levels = ("drawn" if level == DRAWN else str(level) for level in options.levels)
    return {
        "--recipe": fact(options.recipe),
        "DATA": fact(data_fingerprint(dataset)),
        "--masks": fact(options.masks),
        "--levels": fact(",".join(levels)),
        "seed of the examples": seed(options.seed),
        "seed of the degradations": seed(low_seed),
        "degraded versions per image": fact(options.variants),
        "jitter of boxes": fact(options.jitter),
        "share of far points": fact(options.far),
    }


@runtime_checkable
class Fingerprinted(Protocol):
    """A dataset that says in one line what it holds, whatever its path."""

    @property
    def fingerprint(self) -> str:
        """Return a text that differs for other pictures or masks."""


def data_fingerprint(dataset: Dataset) -> str:
    """Return the dataset's own fingerprint, or one made of the number and names of its samples."""
    if isinstance(dataset, Fingerprinted):
        return dataset.fingerprint
    digest = hashlib.sha256("\0".join(dataset.names).encode("utf-8", "surrogateescape"))
    return f"{len(dataset)} samples, names {digest.hexdigest()[:16]}"


_OPTION_OF_ROLE = {
    "sam": "--sam",
    "unet": "--sd",
    "lora": "--lora",
    "text_encoder": "--sd (text encoder)",
    "prompt_embeds": "--prompt-embeds",
    "packed": "--checkpoint",
    "decoder": "--decoder",
    "lora_config": "--lora (adapter_config.json)",
}
"""The option that gives a file of weights, by its role in the manifest."""


def checkpoint_record(checkpoint: Checkpoint, folder: Path) -> dict[str, Fact]:
    """Return what decides the weights that a training starts from.

    Files count by their sha256. Parts that were trained in this process count by their tensors.

    Args:
        checkpoint: where training starts.
        folder: the training's folder. A new LoRA in it counts by its rank, since rank and seed
            decide all of it.
    """
    if isinstance(checkpoint, TrainedCheckpoint):
        record = checkpoint_record(checkpoint.base, folder)
        record["--gamma"] = fact(float(checkpoint.gamma))
        parts = {"trained enhancer": checkpoint.own_enhancer, "decoder": checkpoint.own_decoder}
        return record | {
            f"weights of the {name}": _weights(part)
            for name, part in parts.items()
            if part is not None
        }
    record = {
        "--preset": fact(checkpoint.preset.name),
        "--unet": fact(checkpoint.unet.name),
        "--gamma": fact(float(checkpoint.gamma)),
        "--timestep": Fact(
            f"{checkpoint.timestep}, {float(checkpoint.alpha_bar)!r}",
            f"{checkpoint.timestep} (alpha_bar {checkpoint.alpha_bar:.6g})",
        ),
    }
    record["--input"] = fact(checkpoint.preset.input)
    sources = checkpoint.sources()
    if not sources:
        record["--random-weights"] = fact(checkpoint.origin)
    for source in sources:
        shown = f"{source.file} (sha256 {source.sha256[:12]})"
        record[_OPTION_OF_ROLE.get(source.role, source.role)] = Fact(source.sha256, shown)
    if isinstance(checkpoint, FileCheckpoint):
        own_type = checkpoint.own_prediction_type
        if own_type != "epsilon":
            record["--prediction-type"] = fact(f"epsilon instead of {own_type}")
        factors = checkpoint.lora_factors
        if checkpoint.weights.lora == folder / START_FILE:  # its alpha is its rank
            record["--lora"] = Fact("new", "a new LoRA")
            record["--rank"] = fact(max(len(a) for a, _, _ in factors.values()))
            own = {alpha for a, _, alpha in factors.values() if alpha != len(a)}
            record["--alpha"] = fact(f"{own.pop():g}") if own else BEFORE["--alpha"]
        else:
            alphas = sorted((name, float(alpha)) for name, (_, _, alpha) in factors.items())
            shown = ", ".join(f"{alpha:g}" for alpha in sorted({alpha for _, alpha in alphas}))
            record["--lora-alpha"] = Fact(str(alphas), shown)
    return record


def weights_fact(state: Mapping[str, Tensor]) -> Fact:
    """Return the sha256 of tensors in memory."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return Fact(digest.hexdigest(), f"sha256 {digest.hexdigest()[:12]}")


def _weights(part: nn.Module) -> Fact:
    """Hash what was trained of a part: an enhancer's adapters, or a whole decoder."""
    if not isinstance(part, Enhancer):
        return weights_fact(part.state_dict())
    return weights_fact(
        {
            f"{name}.{factor}": tensor
            for name, (a, b, _) in write.adapters(part.unet).items()
            for factor, tensor in (("a", a), ("b", b))
        }
    )
