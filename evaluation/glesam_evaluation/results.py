"""What an evaluation found: rows, their means, and both as JSON and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from glesam_evaluation.conditions import CLEAR, LQ
from glesam_evaluation.degrade import UNSEEN
from glesam_evaluation.protocol import Row
from glesam_runtime.errors import InputError

FORMAT, VERSION = "glesam-evaluation", 1
METRICS = ("iou", "dice", "pixel_accuracy")
LQ_MEAN, UNSEEN_MEAN = "LQ mean", "unseen mean"
MEANS: Mapping[str, tuple[str, ...]] = {LQ_MEAN: LQ, UNSEEN_MEAN: tuple(UNSEEN)}
_COLUMNS = (LQ[2], LQ[1], LQ[0], LQ_MEAN, CLEAR, UNSEEN_MEAN)
_FIELDS = tuple(Row.__dataclass_fields__)


@dataclass(frozen=True)
class Mean:
    """The mean over all masks of one segmenter, kind of prompt and column of the table."""

    segmenter: str
    prompt: str
    condition: str
    """A condition, `LQ_MEAN` or `UNSEEN_MEAN`."""
    masks: int
    iou: float
    dice: float
    pixel_accuracy: float


@dataclass(frozen=True)
class Results:
    """Rows, and what they are of."""

    model: str
    """One line: which model, and what its figures are worth."""
    dataset: str
    seed: int
    rows: tuple[Row, ...]

    @property
    def images(self) -> int:
        """How many images there were."""
        return len({row.image for row in self.rows})

    @property
    def segmenters(self) -> list[str]:
        """Their names, as evaluated."""
        return list(dict.fromkeys(row.segmenter for row in self.rows))

    @property
    def prompts(self) -> list[str]:
        """Kinds of prompt, as evaluated."""
        return list(dict.fromkeys(row.prompt for row in self.rows))

    @property
    def conditions(self) -> list[str]:
        """Conditions, as evaluated."""
        return list(dict.fromkeys(row.condition for row in self.rows))

    @property
    def columns(self) -> list[str]:
        """The table's: the paper's order first, then single degradations LQSeg knows."""
        held = {mean.condition for mean in self.means()}
        others = [name for name in self.conditions if name not in (*_COLUMNS, *UNSEEN)]
        # One unseen degradation alone has no unseen mean; then it stands for itself.
        single = [name for name in UNSEEN if name in held and UNSEEN_MEAN not in held]
        return [name for name in _COLUMNS if name in held] + single + others

    def means(self) -> list[Mean]:
        """Every mask counts alike; `LQ mean` and `unseen mean` only where all of theirs ran."""
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
        """For JSON: means first, then every row as an array."""
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
    """Read what `Results.as_dict` gave a JSON file.

    Raises:
        InputError: unreadable, or not such a file.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not an evaluation's report.json ({error})") from error
    if (file.format, file.version) != (FORMAT, VERSION):
        raise InputError(
            f"{path}: {file.format} version {file.version}, this program reads {FORMAT} {VERSION}"
        )
    try:
        named = [dict(zip(file.row_fields, row, strict=True)) for row in file.rows]
        rows = msgspec.convert(named, list[Row])
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not an evaluation's report.json ({error})") from error
    return Results(file.model, file.dataset, file.seed, tuple(rows))


def _mean(segmenter: str, prompt: str, condition: str, rows: Iterable[Row]) -> Mean:
    figures = np.asarray([[getattr(row, metric) for metric in METRICS] for row in rows])
    return Mean(segmenter, prompt, condition, len(figures), *figures.mean(axis=0).tolist())
