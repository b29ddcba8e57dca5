"""The tables of an evaluation in Markdown, as the paper has them."""

from __future__ import annotations

from glesam_evaluation.conditions import SEVERITY
from glesam_evaluation.results import METRICS, Mean, Results

_TITLES = dict(zip(METRICS, ("IoU", "Dice", "PA"), strict=True))


def describe_model(preset: str, unet: str, trained: bool, source: str) -> str:
    """A report's first line: which model, and what its figures are worth.

    Args:
        preset: the SAM's.
        unet: the U-Net's.
        trained: whether its masks mean anything.
        source: where it came from, in words.
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
    """IoU, Dice and PA in percent: a table each, a row a segmenter and kind of prompt."""
    means = {(mean.segmenter, mean.prompt, mean.condition): mean for mean in results.means()}
    masks = len({(row.image, row.mask) for row in results.rows})
    lines = [
        results.model,
        "",
        f"{_count(masks, 'mask')} in {_count(results.images, 'image')} of {results.dataset}, "
        f"seed {results.seed}. Means over masks, in percent; the decoder's single mask "
        "(`multimask_output=False`); each segmenter sees the same images and prompts. "
        f"Single degradations have severity {SEVERITY:g}.",
    ]
    for metric, title in _TITLES.items():
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
    """Words to the left, figures to the right."""
    return [
        text.ljust(width) if index < 2 else text.rjust(width)
        for index, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
