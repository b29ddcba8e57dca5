"""What the system says of this process and of the machine around it."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

_LEAST_SECONDS = 0.5
"""The system counts in hundredths: of less there is nothing to say."""
_CPU_INFO = Path("/proc/cpuinfo")
_FEATURES = ("amx_bf16", "amx_int8", "avx512_fp16", "avx512_bf16", "avx512f", "avx2", "bf16", "sve")
_FORGET = "5"
"""Written to clear_refs: the peak starts again from what is held now."""


def peak_rss() -> int:
    """The most memory this process held so far, or since `forget_peak`; bytes.

    Files that are mapped count as far as they were read.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: it counts what the parent held before this became a program of its own.
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return 1024 * int(found[1])
    import resource  # of Unix alone

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def forget_peak() -> bool:
    """Start the peak again; False where the system has no such thing."""
    try:
        Path("/proc/self/clear_refs").write_text(_FORGET)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Watch:
    """How much of the machine others used since this was made."""

    start: float = field(default_factory=time.perf_counter)
    busy: float | None = field(default_factory=lambda: _busy_seconds())
    own: float = field(default_factory=time.process_time)

    def others(self) -> float | None:
        """Share of all processors' time that other processes had, 0 to 1; None if not known."""
        busy = _busy_seconds()
        wall = time.perf_counter() - self.start
        if busy is None or self.busy is None or wall < _LEAST_SECONDS:
            return None
        foreign = busy - self.busy - (time.process_time() - self.own)
        return min(1.0, max(0.0, foreign / (wall * (os.cpu_count() or 1))))


def load_average() -> float | None:
    """Of the last minute; None where the system keeps none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Host(msgspec.Struct, frozen=True):
    """The machine."""

    processors: int
    processor: str
    features: tuple[str, ...]
    """What decides how fast it multiplies, as far as the system says: "amx_bf16" and the like."""
    system: str
    threads: int | None
    """As asked for; None left it to each engine."""

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.threads else ""
        features = f" ({', '.join(self.features)})" if self.features else ""
        return f"{self.processor}{features}, {self.processors} processors{threads}"


def host(threads: int | None) -> Host:
    """This one."""
    told = _CPU_INFO.read_text(errors="replace") if _CPU_INFO.is_file() else ""
    named = re.search(r"^model name\s*: (.+)$", told, re.MULTILINE)
    able = re.search(r"^(?:flags|Features)\s*: (.+)$", told, re.MULTILINE)
    words = set(able[1].split()) if able else set()
    name = named[1].strip() if named else platform.processor() or platform.machine()
    system = f"{platform.system().lower()}-{platform.machine().lower()}"
    features = tuple(feature for feature in _FEATURES if feature in words)
    return Host(processors(), name, features, system, threads)


def _busy_seconds() -> float | None:
    """Time that all processors together spent on any process since the system started."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _, _, irq, softirq, *_ = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
