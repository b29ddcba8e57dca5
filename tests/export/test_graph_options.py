"""The options for precision and batch size accept what they should, and nothing else."""

from __future__ import annotations

import pytest

from glesam_export.graph_options import GraphOptions, batch_size, one_precision
from glesam_runtime.errors import InputError


@pytest.mark.parametrize(
    ("name", "flags", "found"),
    [
        (None, set(), "fp32"),
        ("fp32", set(), "fp32"),
        ("fp16", {"fp16"}, "fp16"),
        (None, {"bf16"}, "bf16"),
        (None, {"fp32"}, "fp32"),
        ("bf16", set(), "bf16"),
    ],
)
def test_precision(name: str | None, flags: set[str], found: str) -> None:
    assert one_precision(name, flags) == found


@pytest.mark.parametrize(
    ("name", "flags"),
    [("fp32", {"fp16"}), (None, {"fp16", "bf16"}), ("fp16", {"bf16"}), (None, {"fp32", "fp16"})]
    + [(name, set()) for name in ("", "int8", "fp8", "half", "FP16")],
)
def test_precision_refused(name: str | None, flags: set[str]) -> None:
    with pytest.raises(InputError, match="--precision"):
        one_precision(name, flags)


def test_flags() -> None:
    assert GraphOptions().flags == set()
    assert GraphOptions(fp16=True, fp32=True).flags == {"fp16", "fp32"}


def test_batch() -> None:
    assert batch_size("dynamic") == "dynamic"
    assert [batch_size(text) for text in ("1", "8", "1024")] == [1, 8, 1024]


@pytest.mark.parametrize("text", ["", "0", "-1", "1025", "1.5", "N", "Dynamic", "9" * 5000, "²"])
def test_batch_refused(text: str) -> None:
    with pytest.raises(InputError, match="--batch"):
        batch_size(text)
