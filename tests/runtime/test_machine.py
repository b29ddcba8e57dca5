from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from glesam_runtime import machine

TOLD = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu sse4_2 {flags}
processor\t: 1
model name\t: Some CPU
flags\t\t: fpu sse4_2 {flags}
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the system report these CPU flags."""

    def tell(flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(TOLD.format(flags=flags))
        monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")

    return tell


@pytest.mark.parametrize(
    ("system", "flags", "exactly"),
    [
        ("x86_64", "avx avx2", False),
        ("x86_64", "avx2 avx512f avx512bw", False),
        ("x86_64", "avx2 avx512f avx512_vnni", True),
        ("AMD64", "avx2 avx_vnni", True),
        ("x86_64", "avx512f amx_int8", True),
        ("aarch64", "asimd", True),
    ],
)
def test_products_of_bytes(
    system: str,
    flags: str,
    exactly: bool,
    told: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told(flags)
    monkeypatch.setattr(platform, "machine", lambda: system)
    assert machine.adds_bytes_exactly() is exactly
    assert machine.cpu_name() == f"Some CPU fpu sse4_2 {flags}"


@pytest.mark.parametrize(
    ("flags", "multiplies", "trains_faster"),
    [
        ("avx2", False, False),
        ("avx512f avx512_vnni", False, False),
        ("avx512f avx512_bf16", True, False),
        ("avx512f avx512_bf16 amx_tile amx_bf16", True, True),
        ("asimd bf16 sve", True, True),
    ],
)
def test_bfloat16(
    flags: str, multiplies: bool, trains_faster: bool, told: Callable[[str], None]
) -> None:
    told(flags)
    assert machine.multiplies_bfloat16() is multiplies
    assert machine.trains_faster_in_bfloat16() is trains_faster


def test_an_x86_cpu_of_which_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    assert not machine.adds_bytes_exactly()
