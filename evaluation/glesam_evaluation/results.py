"""Hold the results of an evaluation: rows and their means, as JSON and as Markdown tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from glesam_evaluation.conditions import CLEAR, CONDITIONS, LQ, SEVERITY
from glesam_evaluation.degrade import UNSEEN, VISIBILITY
from glesam_evaluation.protocol import Row
from glesam_runtime.errors import InputError

FORMAT, VERSION = "glesam-evaluation", 1
METRICS = ("iou", "dice", "pixel_accuracy", "boundary_iou")
LQ_MEAN, UNSEEN_MEAN, VISIBILITY_MEAN = "LQ mean", "unseen mean", "visibility mean"
MEANS: Mapping[str, tuple[str, ...]] = {
    LQ_MEAN: LQ,
    UNSEEN_MEAN: tuple(UNSEEN),
    VISIBILITY_MEAN: tuple(VISIBILITY),
}
_COLUMNS = (LQ[2], LQ[1], LQ[0], LQ_MEAN, CLEAR, UNSEEN_MEAN, VISIBILITY_MEAN)
_FIELDS = tuple(Row.__dataclass_fields__)


@dataclass(frozen=True)
class Mean:
    """The mean over all masks, for one segmenter, kind of prompt and column of the table."""

    segmenter: str
    prompt: str
    condition: str
    """A condition, or a key of `MEANS`."""
    masks: int
    iou: float
    dice: float
    pixel_accuracy: float
    boundary_iou: float | None = None
    """None if a row has none."""


@dataclass(frozen=True)
class Results:
    """The rows of an evaluation, and what was evaluated."""

    model: str
    """One line that names the model and says how to read its results."""
    dataset: str
    seed: int
    rows: tuple[Row, ...]

    @property
    def images(self) -> int:
        """Return the number of images."""
        return len({row.image for row in self.rows})

    @property
    def segmenters(self) -> list[str]:
        """Return the names of the segmenters, in the order of evaluation."""
        return list(dict.fromkeys(row.segmenter for row in self.rows))

    @property
    def prompts(self) -> list[str]:
        """Return the kinds of prompt, in the order of evaluation."""
        return list(dict.fromkeys(row.prompt for row in self.rows))

    @property
    def conditions(self) -> list[str]:
        """Return the conditions, in the order of evaluation."""
        return list(dict.fromkeys(row.condition for row in self.rows))

    @property
    def columns(self) -> list[str]:
        """Return the columns of the tables: those of the paper, then other degradations."""
        held = {mean.condition for mean in self.means()}
        # A set of degradations that did not run completely has no mean, so each one gets a column.
        in_means = [name for mean, parts in MEANS.items() if mean in held for name in parts]
        others = [name for name in self.conditions if name not in (*_COLUMNS, *in_means)]
        ordered = sorted(others, key=CONDITIONS.index)
        return [name for name in _COLUMNS if name in held] + ordered

    def means(self) -> list[Mean]:
        """Return the means over masks, each mask counted once.

        The means of `MEANS` exist only where all of their conditions ran.
        """
        groups: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in self.rows:
            groups[row.segmenter, row.prompt][row.condition].append(row)
        found = []
        for (segmenter, prompt), by_condition in groups.items():
            found += [
                _mean(segmenter, prompt, condition, rows)
                for condition, rows in by_condition.items()
            ]
            found += [
                _mean(segmenter, prompt, name, (row for c in parts for row in by_condition[c]))
                for name, parts in MEANS.items()
                if all(c in by_condition for c in parts)
            ]
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON: the means first, then every row as an array."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "dataset": self.dataset,
            "seed": self.seed,
            "means": [msgspec.to_builtins(mean) for mean in self.means()],
            "row_fields": list(_FIELDS),
            "rows": [[getattr(row, field) for field in _FIELDS] for row in self.rows],
        }


class _File(msgspec.Struct):
    format: str
    version: int
    model: str
    dataset: str
    seed: int
    row_fields: list[str]
    rows: list[list[Any]]


def read_results(path: Path) -> Results:
    """Read a JSON file that holds the dictionary of `Results.as_dict`.

    Raises:
        InputError: the file cannot be read, or is not such a file.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not an evaluation's report.json ({error})") from error
    if (file.format, file.version) != (FORMAT, VERSION):
        raise InputError(
            f"{path}: is {file.format} version {file.version}, but this program reads "
            f"{FORMAT} version "
            f"{VERSION}; evaluate again"
        )
    try:
        named = [dict(zip(file.row_fields, row, strict=True)) for row in file.rows]
        rows = msgspec.convert(named, list[Row])
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not an evaluation's report.json ({error})") from error
    return Results(file.model, file.dataset, file.seed, tuple(rows))


def _mean(segmenter: str, prompt: str, condition: str, rows: Iterable[Row]) -> Mean:
    figures = np.asarray(
        [[getattr(row, metric) for metric in METRICS] for row in rows], dtype=np.float64
    )
    iou, dice, accuracy, boundary = figures.mean(axis=0).tolist()
    measured = None if np.isnan(boundary) else boundary
    return Mean(segmenter, prompt, condition, len(figures), iou, dice, accuracy, measured)


_TITLES = dict(zip(METRICS, ("IoU", "Dice", "PA", "Boundary IoU"), strict=True))


def describe_model(preset: str, unet: str, trained: bool, source: str) -> str:
    """Return the first line of a report, which names the model and says how to read its results.

    Args:
        preset: preset of the SAM.
        unet: preset of the U-Net.
        trained: whether the weights are trained.
        source: where the model comes from, in words.
    """
    if not trained:
        return f"{preset} with {unet}: untrained, these figures mean nothing ({source})"
    if preset == "nano":
        return (
            "nano: a 5 M parameter model trained on procedural scenes; not comparable with the "
            f"paper's figures ({source})"
        )
    return f"{preset} with {unet} ({source})"


def markdown(results: Results) -> str:
    """Return a Markdown table per metric in percent, with a row per segmenter and prompt."""
    means = {(mean.segmenter, mean.prompt, mean.condition): mean for mean in results.means()}
    masks = len({(row.image, row.mask) for row in results.rows})
    lines = [
        results.model,
        "",
        f"{_count(masks, 'mask')} in {_count(results.images, 'image')} of {results.dataset}, "
        f"seed {results.seed}. Means over masks, in percent; the decoder's single mask "
        "(`multimask_output=False`); each segmenter sees the same images and prompts. "
        "RobustSeg's degradations (unseen) have their published strength, other single ones "
        f"severity {SEVERITY:g}.",
    ]
    for metric, title in _TITLES.items():
        if any(getattr(mean, metric) is None for mean in means.values()):
            continue
        lines += ["", f"## {title}", "", *_table(results, means, metric)]
    return "\n".join(lines) + "\n"


def _table(results: Results, means: dict[tuple[str, str, str], Mean], metric: str) -> list[str]:
    columns = results.columns
    rows = [["prompt", "segmenter", *columns]]
    for prompt in results.prompts:
        for segmenter in results.segmenters:
            found = [means.get((segmenter, prompt, column)) for column in columns]
            figures = [f"{100 * getattr(mean, metric):.2f}" if mean else "-" for mean in found]
            rows.append([prompt, segmenter, *figures])
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    rule = [
        "-" * width if index < 2 else "-" * (width - 1) + ":" for index, width in enumerate(widths)
    ]
    rows.insert(1, rule)
    return ["| " + " | ".join(_padded(row, widths)) + " |" for row in rows]


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _padded(row: list[str], widths: list[int]) -> list[str]:
    """Align words to the left and figures to the right."""
    return [
        text.ljust(width) if index < 2 else text.rjust(width)
        for index, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
