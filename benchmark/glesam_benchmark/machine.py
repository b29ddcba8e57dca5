"""Read what the system reports about this process and the machine: memory, load, processor."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from glesam_runtime.machine import cores

_LEAST_SECONDS = 0.5
"""Shortest time to judge: the system counts processor time in hundredths of a second."""
_CPU_INFO = Path("/proc/cpuinfo")
_FEATURES = ("amx_bf16", "amx_int8", "avx512_fp16", "avx512_bf16", "avx512f", "avx2", "bf16", "sve")
_FORGET = "5"
"""Written to clear_refs, this resets the peak to the memory held now."""


def peak_rss() -> int:
    """Return the peak resident memory of this process in bytes, since its start or `forget_peak`.

    Mapped files count as far as they were read.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage is no alternative on Linux: it includes the parent's memory before the exec.
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return 1024 * int(found[1])
    import resource  # exists on Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def forget_peak() -> bool:
    """Reset the peak; return False if the system does not support it."""
    try:
        Path("/proc/self/clear_refs").write_text(_FORGET)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Watch:
    """Measures how much of the machine other processes have used since this object was made."""

    start: float = field(default_factory=time.perf_counter)
    busy: float | None = field(default_factory=lambda: _busy_seconds())
    own: float = field(default_factory=time.process_time)

    def others(self) -> float | None:
        """Return the share of all processors used by other processes, 0 to 1; None if unknown."""
        busy = _busy_seconds()
        wall = time.perf_counter() - self.start
        if busy is None or self.busy is None or wall < _LEAST_SECONDS:
            return None
        foreign = busy - self.busy - (time.process_time() - self.own)
        return min(1.0, max(0.0, foreign / (wall * (os.cpu_count() or 1))))


def load_average() -> float | None:
    """Return the load average of the last minute; None if the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


class Host(msgspec.Struct, frozen=True):
    """The machine that ran the benchmark."""

    processors: int
    processor: str
    features: tuple[str, ...]
    """The CPU features that decide its matrix speed, such as "amx_bf16", as far as known."""
    system: str
    threads: int | None
    """The number asked for; None left it to each engine."""

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.threads else ""
        features = f" ({', '.join(self.features)})" if self.features else ""
        return f"{self.processor}{features}, {self.processors} processors{threads}"


def host(threads: int | None) -> Host:
    """Describe this machine."""
    told = _CPU_INFO.read_text(errors="replace") if _CPU_INFO.is_file() else ""
    named = re.search(r"^model name\s*: (.+)$", told, re.MULTILINE)
    able = re.search(r"^(?:flags|Features)\s*: (.+)$", told, re.MULTILINE)
    words = set(able[1].split()) if able else set()
    name = named[1].strip() if named else platform.processor() or platform.machine()
    system = f"{platform.system().lower()}-{platform.machine().lower()}"
    features = tuple(feature for feature in _FEATURES if feature in words)
    return Host(cores(), name, features, system, threads)


def _busy_seconds() -> float | None:
    """Return the busy seconds of all processors since the system started; None if unknown."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _, _, irq, softirq, *_ = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
