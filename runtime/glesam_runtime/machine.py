"""What this machine is: engines compute by what the CPU can do."""

from __future__ import annotations

import platform
import re
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})
_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Features of an x86 CPU that adds products of bytes in 32 bits."""
_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Features of a CPU that multiplies bfloat16, on x86 and ARM."""


def cpu_name() -> str:
    """The CPU's name and what it can do; elsewhere than on Linux, what the platform tells."""
    if not _CPU_INFO.exists():
        return f"{platform.machine()} {platform.processor()}"
    lines = _CPU_INFO.read_text(errors="replace")
    found = re.findall(r"^(?:model name|flags|Features|CPU part)\s*: (.*)$", lines, re.MULTILINE)
    return " ".join(dict.fromkeys(found))


def adds_bytes_exactly() -> bool:
    """Whether products of bytes are added without loss.

    An x86 CPU without VNNI adds two of them in 16 bits, in which they do not always fit and are cut
    off. Where the system does not say what the CPU has, an x86 CPU is taken for one of those.
    """
    if platform.machine().lower() not in _X86:
        return True
    return not _DOT_PRODUCTS.isdisjoint(cpu_name().split())


def multiplies_bfloat16() -> bool:
    """Whether the CPU says that it has bfloat16 arithmetic.

    Without it PyTorch turns every number to float32 and back: an iteration of nano's training took
    29 s in bfloat16 on two cores that have AVX2 alone, and 2.5 s in float32.
    """
    return not _BFLOAT16.isdisjoint(cpu_name().split())
