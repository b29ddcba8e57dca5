"""Draw IoU over the quality of images, as the paper's Fig. 4 does.

Quality is `metrics.sharpness`. The authors' code for this figure is not released.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glesam_evaluation.plot import require_matplotlib
from glesam_evaluation.results import Results
from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = (32, 25)
"""Bins of the density map: quality (logarithmic), IoU."""
_GROUPS = 8
"""Points of the line of means; each stands for an equal number of masks."""


def draw_quality(results: Results, path: Path) -> None:
    """Write a PNG with a density map of IoU over quality for each segmenter, and their means.

    All masks, prompts and conditions count.

    Raises:
        InputError: matplotlib is not installed, or the results hold no quality.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = {
        name: np.array(
            [(row.quality, row.iou) for row in results.rows if row.segmenter == name], np.float64
        )
        for name in results.segmenters
    }
    if any(np.isnan(values).any() for values in measured.values()):
        raise InputError("the results hold no quality of the images; evaluate again")
    # An image of one value has the quality 0, which a logarithm cannot show.
    low, high = 1.0, max(10.0, *(float(values[:, 0].max()) for values in measured.values()))
    edges = np.geomspace(low, high * 1.001, _BINS[0] + 1), np.linspace(0, 1, _BINS[1] + 1)

    panels = len(measured) + 1
    figure = Figure(figsize=(1 + 4.5 * panels, 4.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis, (name, values) in zip(axes, measured.items(), strict=False):
        counts, *_ = np.histogram2d(np.maximum(values[:, 0], low), values[:, 1], edges)
        axis.pcolormesh(*edges, np.ma.masked_equal(counts.T, 0), cmap="viridis", rasterized=True)
        axis.set_title(f"{name}: number of masks", fontsize=10)
        _label(axis)
    for name, values in measured.items():
        order = np.argsort(values[:, 0], kind="stable")
        groups = np.array_split(values[order], min(_GROUPS, len(values)))
        axes[-1].plot(
            [np.exp(np.log(np.maximum(group[:, 0], low)).mean()) for group in groups],
            [group[:, 1].mean() for group in groups],
            marker="o",
            label=name,
        )
    axes[-1].set_title("mean of equal shares of the masks", fontsize=10)
    axes[-1].legend(frameon=False, fontsize=8)
    _label(axes[-1])
    figure.suptitle(results.model, fontsize=9, wrap=True)
    figure.savefig(path, format="png")


def _label(axis: Axes) -> None:
    axis.set_xscale("log")
    axis.set_xlabel("quality: variance of the Laplacian")
    axis.set_ylabel("IoU")
    axis.spines[["top", "right"]].set_visible(False)
