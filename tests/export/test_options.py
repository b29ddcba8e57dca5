"""How graphs are asked to be typed and shaped."""

from __future__ import annotations

import pytest

from glesam_export.options import batch_size, one_precision
from glesam_runtime.errors import InputError


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((None, False, False), "fp32"),
        (("fp32", False, False), "fp32"),
        (("fp16", True, False), "fp16"),
        ((None, False, True), "bf16"),
        (("bf16", False, False), "bf16"),
    ],
)
def test_precision(asked: tuple[str | None, bool, bool], found: str) -> None:
    assert one_precision(*asked) == found


@pytest.mark.parametrize(
    "asked",
    [("fp32", True, False), (None, True, True), ("fp16", False, True), ("FP16", False, False)]
    + [(name, False, False) for name in ("", "int8", "fp8", "half")],
)
def test_precision_refused(asked: tuple[str | None, bool, bool]) -> None:
    with pytest.raises(InputError, match="--precision"):
        one_precision(*asked)


def test_batch() -> None:
    assert batch_size("dynamic") == "dynamic"
    assert [batch_size(text) for text in ("1", "8", "1024")] == [1, 8, 1024]


@pytest.mark.parametrize("text", ["", "0", "-1", "1025", "1.5", "N", "Dynamic", "9" * 5000, "²"])
def test_batch_refused(text: str) -> None:
    with pytest.raises(InputError, match="--batch"):
        batch_size(text)
