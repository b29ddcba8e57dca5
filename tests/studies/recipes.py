"""Draw the distributions of the released recipe beside those of its options file, and compare them.

Run by `make recipes`: it writes docs/images/recipes.png and prints the Kolmogorov-Smirnov
statistics of docs/degradations.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tests.evaluation.released_distributions import DISTRIBUTIONS, largest_gap

from glesam_evaluation.degrade import LQSEG, RELEASED, Blur, Recipe, ReleasedRecipe, sample_recipe
from glesam_runtime.staging import staged_file

DRAWS = 100_000
SHOWN = (
    "kernel size",
    "sigma, pixels",
    "Gaussian noise, first pass",
    "Poisson noise, first pass",
    "JPEG quality, first pass",
    "scale, first pass",
    "scale, second pass",
    "rate",
)
_BINS = 40


def main(picture: Path) -> None:
    """Draw DRAWS recipes, compare and plot them."""
    released = numbers([sample_recipe(None, seed, RELEASED) for seed in range(DRAWS)])
    # The paper has no rates to draw from: LQ-1 to LQ-3 are 1, 2 and 4.
    paper = numbers([sample_recipe(1 + seed % 3, seed, LQSEG) for seed in range(DRAWS // 5)])
    print("| parameter | values | Kolmogorov-Smirnov |\n|---|---:|---:|")
    for name, cdf in DISTRIBUTIONS.items():
        values = released[name]
        print(f"| {name} | {len(values):,} | {largest_gap(values, cdf):.4f} |")

    figure = Figure(figsize=(14, 6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name in zip(figure.subplots(2, 4).ravel(), SHOWN, strict=True):
        both = np.concatenate([released[name], paper[name]])
        whole = bool((both == np.rint(both)).all())
        low, high = float(both.min()), float(both.max())
        edges = (
            np.arange(low - 0.5, high + 1) if whole else np.linspace(low, high + 1e-9, _BINS + 1)
        )
        shares = {
            "--recipe released, drawn": np.histogram(released[name], edges)[0]
            / len(released[name]),
            "--recipe paper, drawn": np.histogram(paper[name], edges)[0] / len(paper[name]),
            "the authors' options file": np.diff(DISTRIBUTIONS[name](np.nextafter(edges, -np.inf))),
        }
        styles = (
            {"fill": True, "color": "#56b4e9"},
            {"color": "#d55e00", "lw": 1.2},
            {"color": "black", "lw": 1.2},
        )
        for (label, share), style in zip(shares.items(), styles, strict=True):
            axis.stairs(share, edges, label=label, **style)
        axis.set_title(name, fontsize=10)
        axis.set_yticks([])
        axis.spines[["top", "right", "left"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    with staged_file(picture) as partial:
        figure.savefig(partial, format="png")


def numbers(recipes: list[Recipe] | list[ReleasedRecipe]) -> dict[str, np.ndarray]:
    """Return the numbers of recipes by the names of the oracle."""
    blurs: list[Blur] = [r.first.blur for r in recipes if r.first.blur is not None]
    shaped = [blur for blur in blurs if blur.kind != "sinc"]
    found: dict[str, list[float]] = {
        "kernel size": [blur.size for blur in blurs],
        "sigma, pixels": [blur.sigma_x for blur in shaped],
        "angle": [blur.angle for blur in shaped if blur.sigma_x != blur.sigma_y],
        "beta, generalized": [blur.beta for blur in shaped if blur.kind == "generalized"],
        "beta, plateau": [blur.beta for blur in shaped if blur.kind == "plateau"],
        "cutoff of sinc": [blur.cutoff for blur in blurs if blur.kind == "sinc"],
        "rate": [r.rate for r in recipes],
        "last sinc, cutoff or 0": [
            r.last_sinc.cutoff if isinstance(r, ReleasedRecipe) and r.last_sinc else 0
            for r in recipes
        ],
    }
    for name in ("first", "second"):
        passes = [getattr(r, name) for r in recipes]
        noises = [one.noise for one in passes]
        found |= {
            f"scale, {name} pass": [one.resize.scale for one in passes],
            f"Gaussian noise, {name} pass": [n.strength for n in noises if n.kind == "gaussian"],
            f"Poisson noise, {name} pass": [n.strength for n in noises if n.kind == "poisson"],
            f"JPEG quality, {name} pass": [one.jpeg.quality for one in passes],
        }
    return {name: np.array(values, np.float64) for name, values in found.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
