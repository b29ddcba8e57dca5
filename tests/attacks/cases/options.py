"""Options of glesam-run: numbers out of range, no numbers, and combinations without sense."""

from __future__ import annotations

from typing import Any

from ..case import Case


def _with(*options: str, says: str = "", **further: Any) -> Case:
    """Return the case of options besides those of a sound run; `says` is the first by default."""
    spelled = " ".join(options).encode("unicode_escape").decode()[:60]
    return Case("option", spelled, lambda p: p.command(*options), says or options[0], **further)


def _alone(*options: str, says: str, name: str = "", **further: Any) -> Case:
    """Return the case of an image with these options only, in which OUT stands for the folder."""
    spelled = name or "alone: " + " ".join(options).encode("unicode_escape").decode()[:60]
    return Case("option", spelled, lambda p: [p.photo(), *options, *p.engine()], says, **further)


def _grid(option: str, value: str, says: str = "", **further: Any) -> Case:
    return _alone("--everything", option, value, says=says or option, **further)


_LOW = ("--pred-iou-thresh", "0", "--stability-score-thresh", "0")
CASES = [
    _grid("--points-per-side", "1000000000"),
    _alone(
        "--everything", "--points-per-side", "9" * 400, says="side", name="a grid of 400 digits"
    ),
    _grid("--points-per-side", "9" * 5000),
    _grid("--points-per-side", "0"),
    _grid("--points-per-side", "-1"),
    _grid("--points-per-side", "nan"),
    _grid("--points-per-side", "1e3"),
    _grid("--points-per-batch", "0"),
    _alone(
        "--everything",
        "--points-per-batch",
        "1000000000000",
        "--points-per-side",
        "4",
        *_LOW,
        says="",
        codes=(0,),
    ),
    _grid("--pred-iou-thresh", "nan"),
    _grid("--pred-iou-thresh", "inf"),
    _grid("--pred-iou-thresh", "-0.1"),
    _grid("--stability-score-thresh", "2"),
    _grid("--stability-score-offset", "-inf"),
    _grid("--stability-score-offset", "nan"),
    _alone(
        "--everything",
        "--stability-score-offset",
        "1e308",
        "--points-per-side",
        "2",
        says="",
        codes=(0, 2),
    ),
    _grid("--box-nms-thresh", "nan"),
    _grid("--crop-n-layers", "1000000000", says="crop", mebibytes=300),
    _grid("--crop-n-layers", "12", says="crop"),
    _grid("--crop-overlap-ratio", "1"),
    _grid("--crop-overlap-ratio", "nan"),
    _grid("--crop-n-points-downscale-factor", "0"),
    _grid("--crop-n-points-downscale-factor", "1000000000000000000000", codes=(0, 2)),
    _grid("--min-mask-region-area", "-1"),
    _grid("--min-mask-region-area", "9" * 300, codes=(0, 2)),
    _alone("--points", "nan,1", says="--points"),
    _alone("--points", "inf,1", says="--points"),
    _alone("--points", "1e400,1", says="--points"),
    _alone("--points", "1,2,3", says="--points"),
    _alone("--points", "1;2", says="--points"),
    _alone("--points", "", says="--points"),
    _alone("--points", "1,2," * 100_000, says="--points", name="an option of 400 KB"),
    _alone("--points", "1_0,1_0", says="--points", codes=(0, 2)),
    _alone("--points", "\u0661,\u0662", says="--points", codes=(0, 2)),
    _alone("--points", "\x1b[2J,1", says="--points"),
    _alone("--points", "\udcff,1", says="--points"),
    _alone(*["--points", "1,1"] * 5000, says="GLESAM_MAX_POINTS", name="5000 points"),
    _alone(*["--box", "1,1,9,9"] * 10_001, says="GLESAM_MAX_PROMPTS", name="10001 boxes"),
    _alone("--box", "0,0,nan,9", says="--box"),
    _alone("--box", "9,9,1,1", says="--box"),
    _alone("--box", "-1e308,0,1e308,9", says="box"),
    _alone(says="no prompt", name="no prompt"),
    _with("--threads", "0"),
    _with("--threads", "1000000000000"),
    _with("--threads", "nan"),
    _with("--threads", "4096"),
    _with("--streams", "0"),
    _with("--streams", "1000000000", codes=(0, 2)),
    _with("--in-flight", "0"),
    _with("--in-flight", "1000000000", codes=(0, 2)),
    _with("--prompt-batch", "-1"),
    _with("--prompt-batch", "1" + "0" * 30, codes=(0,), says=""),
    _with("--precision", "fp1\x1b[2J", says="precision"),
    _with("--backend", "../../evil", says="backend"),
    _with("--backend", "x" * 100_000, says="backend"),
    _with("--device", "cuda:99999999999999", says="cuda"),
    _with("--device", "cpu:\u0663", says="device"),
    _with("--depth", "1e9"),
    _with("--cache", "/dev/null", says="/dev/null"),
    _with("--no-such-option"),
    _with("--no-such-option\x1b[2J\r\n", says="no-such-option"),
    _with("--json=5", says="--json"),
    _with("--points-per-side", "4"),
    _with("--selftest"),
    _with("--demo"),
]
