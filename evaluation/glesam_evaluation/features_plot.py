"""Draw latents as pictures, as the paper's Figs. 2, 5 and 9 do.

Each row is an image in a condition: z_L of the degraded image, z_H from it, and the latent of the
clear image. Colours are the three principal components of all latents of the figure together, so
equal colours mean equal features. The authors' code for these figures is not released.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from glesam_evaluation.conditions import CLEAR, LQ, show
from glesam_evaluation.datasets import Dataset
from glesam_evaluation.degrade import recipe_settings
from glesam_evaluation.plot import require_matplotlib
from glesam_evaluation.protocol import EvaluationPlan
from glesam_runtime.image import preprocess

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from glesam_evaluation.segmenters import Stages

Floats = npt.NDArray[np.floating[Any]]

IMAGES = 4
"""Images in the figure, counted from the first of the dataset."""

KINDS = ("z_L", "z_H", "clear latent")

_SPREAD = (1.0, 99.0)
"""Percentiles of each principal component that become 0 and 255."""


@dataclass(frozen=True)
class Features:
    """The latents of one image; all are float32 [256,h,w] without the padding of the image.

    Attributes:
        title: the image's name and condition.
        clear: the image, uint8 RGB [H,W,3].
        shown: the same in the condition.
        latents: by the names of `KINDS`.
    """

    title: str
    clear: npt.NDArray[np.uint8]
    shown: npt.NDArray[np.uint8]
    latents: dict[str, Floats]

    def error(self, kind: str) -> float:
        """Return the mean squared error of a latent to the clear one."""
        difference = self.latents[kind].astype(np.float64) - self.latents[KINDS[-1]]
        return float(np.square(difference).mean())


def shown_condition(conditions: tuple[str, ...]) -> str:
    """Return the condition of the figure: the strongest level of LQSeg, or the last one."""
    levels = [name for name in LQ if name in conditions]
    others = [name for name in conditions if name != CLEAR]
    return (levels or others or [CLEAR])[-1]


def measure_features(stages: Stages, dataset: Dataset, plan: EvaluationPlan) -> list[Features]:
    """Encode and enhance the first images of a dataset.

    Args:
        stages: the model.
        dataset: images.
        plan: its conditions, seed, recipe and limit apply.

    Raises:
        InputError: an image cannot be read.
    """
    condition = shown_condition(plan.conditions)
    found = []
    for index in range(min(len(dataset), plan.limit or IMAGES, IMAGES)):
        sample = dataset[index]
        settings = recipe_settings(plan.recipe)
        shown = show(sample.image, condition, plan.seed, sample.name, settings)
        low, z_l = _encoded(stages, shown)
        _, z_clear = _encoded(stages, sample.image)
        z_h = _without_padding(stages, stages.latent(stages.enhance(low)), shown)
        latents = dict(zip(KINDS, (z_l, z_h, z_clear), strict=True))
        found.append(Features(f"{sample.name}, {condition}", sample.image, shown, latents))
    return found


def principal_components(latents: list[Floats], count: int = 3) -> tuple[Floats, Floats]:
    """Return the mean [C] and the leading components [count,C] of all positions of all latents.

    The largest entry of a component is positive, so that colours do not depend on the library.

    Args:
        latents: [C,h,w] each.
        count: number of components.
    """
    flat = np.concatenate([z.reshape(len(z), -1).T for z in latents]).astype(np.float64)
    mean = flat.mean(0)
    _, vectors = np.linalg.eigh(np.cov(flat - mean, rowvar=False))
    leading = vectors[:, ::-1][:, :count].T
    largest = np.abs(leading).argmax(1)
    return mean, leading * np.sign(leading[np.arange(count), largest])[:, None]


def as_colours(latents: list[Floats]) -> list[npt.NDArray[np.uint8]]:
    """Return latents [C,h,w] as RGB pictures [h,w,3] by one shared basis and one shared scale."""
    mean, components = principal_components(latents)
    projected = [np.tensordot(z.transpose(1, 2, 0) - mean, components.T, axes=1) for z in latents]
    flat = np.concatenate([each.reshape(-1, 3) for each in projected])
    low, high = np.percentile(flat, _SPREAD, axis=0)
    scaled = [(each - low) / np.maximum(high - low, 1e-12) for each in projected]
    return [np.rint(255 * each.clip(0, 1)).astype(np.uint8) for each in scaled]


def energy(latent: Floats) -> Floats:
    """Return the mean of the squares over the channels: [C,h,w] -> [h,w]."""
    return np.asarray(np.square(latent.astype(np.float64)).mean(0))


def draw_features(found: list[Features], model: str, path: Path) -> None:
    """Write a PNG with one row for each image: pictures, colours and energies of the latents.

    Args:
        found: the rows.
        model: title of the figure.
        path: the file.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(19, 0.8 + 2.45 * len(found)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(found), 9, squeeze=False)
    colours = iter(as_colours([row.latents[kind] for row in found for kind in KINDS]))
    energies = [[energy(row.latents[kind]) for kind in KINDS] for row in found]
    # One very strong position would leave all others dark. SAM's latents end in a norm over the
    # channels, so that their energy differs little and needs a scale that does not start at zero.
    all_energies = np.concatenate([drawn.ravel() for row in energies for drawn in row])
    least, most = np.percentile(all_energies, _SPREAD)
    for place, row in enumerate(found):
        cells: list[Axes] = list(axes[place])
        _picture(cells[0], row.clear, "clear image")
        _picture(cells[1], row.shown, row.title)
        for number, kind in enumerate(KINDS):
            error = "" if kind == KINDS[-1] else f", error {row.error(kind):.3g}"
            _picture(cells[2 + number], next(colours), f"{kind}{error}")
            drawn = energies[place][number]
            cells[5 + number].imshow(drawn, vmin=least, vmax=most, cmap="magma")
            _picture(cells[5 + number], None, f"energy of {kind}")
        order = np.argsort(_by_channel(row.latents[KINDS[-1]]))[::-1]
        for kind, style in zip(KINDS, ("C0-", "C1-", "k-"), strict=True):
            cells[8].plot(_by_channel(row.latents[kind])[order], style, lw=0.7, label=kind)
        cells[8].set_yscale("log")
        cells[8].set_title("energy of each channel", fontsize=8)
        cells[8].tick_params(labelsize=6)
    axes[0][8].legend(frameon=False, fontsize=7)
    figure.suptitle(f"{model}: colours are the 3 principal components of all latents", fontsize=9)
    figure.savefig(path, format="png")


def _by_channel(latent: Floats) -> Floats:
    """Return the mean square of each channel: [C,h,w] -> [C]."""
    return np.asarray(np.square(latent.astype(np.float64)).mean((1, 2)))


def _encoded(stages: Stages, image: npt.NDArray[np.uint8]) -> tuple[Any, Floats]:
    """Return the embeddings of an image, and its latent without the padding."""
    embeddings = stages.encode(preprocess(image, stages.preprocessing).tensor)
    return embeddings, _without_padding(stages, stages.latent(embeddings), image)


def _without_padding(stages: Stages, latent: Floats, image: npt.NDArray[np.uint8]) -> Floats:
    """Cut a latent [C,s,s] to the cells that hold a part of the image."""
    rules = stages.preprocessing
    cell = rules.image_size // latent.shape[-1]
    height, width = preprocess(image, rules).geometry.resized
    return latent[:, : -(-height // cell), : -(-width // cell)]


def _picture(axis: Axes, image: npt.NDArray[np.uint8] | None, title: str) -> None:
    if image is not None:
        axis.imshow(image, interpolation="nearest")
    axis.set_title(title, fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
