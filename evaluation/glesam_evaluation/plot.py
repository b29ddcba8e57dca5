"""Plot an evaluation: IoU by condition, and IoU by number of points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glesam_evaluation.conditions import CONDITIONS
from glesam_evaluation.prompting import points_of
from glesam_evaluation.results import LQ_MEAN, Results
from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The palette of Okabe and Ito, which colour-blind readers can tell apart."""
_MARKERS = "osD^vP"
_LEAST_SPAN = 5.0  # percent of IoU
_DASHES = ("-", "--", ":", "-.")


def require_matplotlib() -> None:
    """Raise InputError if matplotlib is missing. Call it before a long run, not after."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            "matplotlib is not installed, and the plot needs it: pip install "
            "'glesam-deploy[calibration]'"
        ) from error


def draw(results: Results, path: Path) -> None:
    """Write a PNG with IoU by condition and, if there are several numbers of points, IoU by points.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    # Without pyplot, matplotlib looks for no window system and keeps no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = sorted(n for prompt in results.prompts if (n := points_of(prompt)) is not None)
    panels = 2 if len(counts) > 1 else 1
    figure = Figure(figsize=(1 + 6 * panels, 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _by_condition(results, axes[0])
    if panels == 2:
        _by_points(results, counts, axes[1])
    for axis in axes:
        axis.set_ylabel("IoU, %")
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        _widen(axis)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle(results.model, fontsize=9, wrap=True)
    figure.savefig(path, format="png")


def _by_condition(results: Results, axis: Axes) -> None:
    """Draw a line per segmenter and kind of prompt; of the points, only one number is shown."""
    shown = [name for name in CONDITIONS if name in results.conditions]
    means = {(m.segmenter, m.prompt, m.condition): 100 * m.iou for m in results.means()}
    prompts = _few(results.prompts)
    for number, segmenter in enumerate(results.segmenters):
        for dash, prompt in enumerate(prompts):
            axis.plot(
                range(len(shown)),
                [means[segmenter, prompt, name] for name in shown],
                label=segmenter if len(prompts) == 1 else f"{segmenter}, {prompt}",
                color=_COLOURS[number % len(_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                linestyle=_DASHES[dash % len(_DASHES)],
            )
    axis.set_xticks(range(len(shown)), [name.replace("_", " ") for name in shown])
    axis.set_title(f"by condition ({', '.join(prompts)})", fontsize=10)


def _by_points(results: Results, counts: list[int], axis: Axes) -> None:
    """Draw a line per segmenter, for the LQ mean if LQ-1 to LQ-3 ran, else the first condition."""
    means = {(m.segmenter, m.prompt, m.condition): 100 * m.iou for m in results.means()}
    condition = LQ_MEAN if LQ_MEAN in results.columns else results.conditions[0]
    for number, segmenter in enumerate(results.segmenters):
        axis.plot(
            counts,
            [means[segmenter, f"{count}-point", condition] for count in counts],
            label=segmenter,
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
        )
    axis.set_xticks(counts)
    axis.set_xlabel("points")
    axis.set_title(f"by number of points ({condition})", fontsize=10)


def _widen(axis: Axes) -> None:
    """Show at least `_LEAST_SPAN` percent on the y axis, so that noise looks small."""
    low, high = axis.get_ylim()
    short = _LEAST_SPAN - (high - low)
    if short > 0:
        axis.set_ylim(low - short / 2, high + short / 2)


def _few(prompts: list[str]) -> list[str]:
    """Return the box prompts and one number of points, because ten lines would be unreadable."""
    counted = sorted(
        (p for p in prompts if points_of(p) is not None), key=lambda p: points_of(p) or 0
    )
    middle = "3-point" if "3-point" in counted else counted[len(counted) // 2] if counted else None
    return [prompt for prompt in prompts if prompt not in counted or prompt == middle]
