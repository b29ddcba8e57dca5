"""Make the tables of docs/gpu.md from gpu.json: `python -m glesam_benchmark.gpu.page JSON PAGE`.

The text between two markers of the page is replaced. Without a JSON it says that nothing was
measured. A JSON of a dry run is refused, because its figures are a CPU's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from glesam_benchmark.gpu.findings import (
    Check,
    Operations,
    Rates,
    Remark,
    Results,
    Streams,
    Timed,
    read_results,
)

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
NOT_MEASURED = "**Not measured on a GPU.**"
_STEPS = ("encoder", "enhancer", "second_prompt", "end_to_end")
_RIVAL = "torch.compile max-autotune, LoRA merged"
_OURS = "onnxruntime cuda"
TARGETS = (
    "At least 1.5 times torch.compile in bf16, end to end",
    "At least 0.5 of the matrix rate: ViT-B with SD 2.1, batch 4",
    "A second prompt in less than 3 ms",
)


def figures(found: Results | None) -> str:
    """Return the tables; without results the sentence that nothing was measured."""
    if found is None:
        return NOT_MEASURED
    timed = found.of(Timed)
    sections = [
        f"{found.device}, {found.started[:10]}. One run of {found.seconds:.0f} s. "
        + ", ".join(f"{name} {version}" for name, version in found.versions.items())
        + ".",
        _rates(found),
        _targets(found),
        *(_model(found, model) for model in dict.fromkeys(row.model for row in timed)),
        _checks(found),
        _lost(found),
    ]
    return "\n\n".join(section for section in sections if section)


def filled(page: str, found: Results | None) -> str:
    """Return a page with the figures between its markers.

    Raises:
        ValueError: the page lacks the markers, or the results are those of a dry run.
    """
    if found is not None and found.dry_run:
        raise ValueError("the results are of a dry run on a CPU; run on a GPU")
    before, marker, rest = page.partition(BEGIN)
    _, other, after = rest.partition(END)
    if not marker or not other:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{figures(found)}\n\n{END}{after}"


def share_of_rate(found: Results, row: Timed) -> float | None:
    """Return the operations per second of encoder and enhancer over the matrix rate."""
    flops = {each.model: each.flops for each in found.of(Operations)}.get(row.model)
    rates = [each.matrix for each in found.of(Rates)]
    name = "tf32" if row.precision == "fp32" else row.precision
    if flops is None or not rates or name not in rates[0]:
        return None
    if not {"encoder", "enhancer"} <= row.seconds.keys():
        return None
    seconds = row.seconds["encoder"] + row.seconds["enhancer"]
    return row.batch * (flops["encoder"] + flops["enhancer"]) / seconds / rates[0][name]


def _rates(found: Results) -> str:
    rates = found.of(Rates)
    if not rates:
        return ""
    (rate, *_) = rates
    cells = [(name, f"{value / 1e12:.0f} TFLOP/s") for name, value in rate.matrix.items()]
    cells.append(("copy on the device", f"{rate.copy / 1e12:.2f} TB/s"))
    title = f"product of {rate.side} x {rate.side} matrices"
    return "### The machine\n\n" + _table((title, "rate"), cells)


def _model(found: Results, model: str) -> str:
    """Return the table of one model: every contender, precision and batch size."""
    rows = _latest(found.of(Timed), model)
    titles = ("", "precision", "batch", *(step.replace("_", " ") for step in _STEPS))
    cells = []
    for row in rows:
        share = share_of_rate(found, row)
        cells.append(
            (
                row.contender,
                row.precision + ("" if row.finite else " (not finite)"),
                str(row.batch),
                *(_milliseconds(row.seconds.get(step)) for step in _STEPS),
                "" if share is None else f"{share:.2f}",
                "" if row.memory is None else f"{row.memory / 1e9:.1f} GB",
            )
        )
    text = f"### {model}\n\n" + _table((*titles, "rate share", "memory"), cells)
    streams = [each for each in found.of(Streams) if each.model == model]
    if streams:
        text += "\n\n" + _table(
            ("", "precision", "streams", "images/s"),
            [
                (each.contender, each.precision, str(each.streams), f"{each.images_per_second:.1f}")
                for each in streams
            ],
        )
    return text


def _latest(rows: Iterable[Timed], model: str) -> list[Timed]:
    """Return the last row of each contender and batch, which has the most steps."""
    last = {(row.contender, row.precision, row.batch): row for row in rows if row.model == model}
    return list(last.values())


def _targets(found: Results) -> str:
    rows = _latest(found.of(Timed), "sam_vit_b")
    ours = [row for row in rows if row.contender.startswith(_OURS)]
    rival = [row for row in rows if row.contender == _RIVAL and row.precision == "bf16"]
    measured = ["not measured"] * len(TARGETS)
    speed = [_whole(row) for row in ours if row.batch == 1 and _whole(row)]
    beaten = [_whole(row) for row in rival if row.batch == 1 and _whole(row)]
    if speed and beaten:
        measured[0] = f"{min(beaten) / min(speed):.2f} times"
    shares = [share_of_rate(found, row) for row in ours if row.batch == 4]
    known = [share for share in shares if share is not None]
    if known:
        measured[1] = f"{max(known):.2f}"
    clicks = [row.seconds["second_prompt"] for row in ours if "second_prompt" in row.seconds]
    if clicks:
        measured[2] = _milliseconds(min(clicks))
    return "### Targets\n\n" + _table(
        ("target", "measured"), list(zip(TARGETS, measured, strict=True))
    )


def _checks(found: Results) -> str:
    checks = found.of(Check)
    if not checks:
        return ""
    cells = [
        (
            each.model,
            each.precision,
            "passed" if each.passed else "FAILED: " + "; ".join(each.failures[:2]),
            f"{max(each.relative_l2.values()):.1e}",
            f"{each.mask_iou_mean:.4f}",
        )
        for each in checks
    ]
    titles = ("self-test", "precision", "result", "worst relative L2", "mask IoU")
    return "### Self-tests\n\n" + _table(titles, cells)


def _lost(found: Results) -> str:
    """Return what was not measured, and why."""
    cells = [
        (part.name, f"{part.status}: {part.reason}")
        for part in found.parts
        if part.status != "done"
    ]
    remarks = found.of(Remark)
    cells += [(each.about, each.text) for each in remarks]
    if not cells:
        return ""
    return "### Not measured, and remarks\n\n" + _table(("what", "why"), cells)


def _whole(row: Timed) -> float:
    return row.seconds.get("end_to_end", 0.0)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.2f} ms"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(titles), "|" + "---|" * len(titles), *map(line, rows)])


def main() -> None:
    """Fill the page."""
    results, page = map(Path, sys.argv[1:])
    found = read_results(results) if results.is_file() else None
    try:
        text = filled(page.read_text(encoding="utf-8"), found)
    except ValueError as error:
        sys.exit(f"error: {results}, {page}: {error}")
    page.write_text(text, encoding="utf-8")
    print(f"{page}: {'figures of ' + str(results) if found else NOT_MEASURED}")


if __name__ == "__main__":
    main()
