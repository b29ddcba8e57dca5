"""Find how much memory is free, within the limits of a container."""

from __future__ import annotations

import os
import re
from pathlib import Path

_FALLBACK = 4 << 30
"""Bytes that count as free where the system does not say."""


def free_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of bytes that this process may still take.

    Args:
        proc: where Linux describes the machine.
        cgroup: where Linux describes the container; its limit counts if it is lower.
    """
    free = _available(proc / "meminfo")
    limit = _number(cgroup / "memory.max")
    if limit is not None:
        free = min(free, max(0, limit - (_number(cgroup / "memory.current") or 0)))
    return free


def _available(meminfo: Path) -> int:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    try:
        return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) // 2
    except (AttributeError, OSError, ValueError):
        return _FALLBACK


def _number(file: Path) -> int | None:
    """Return the number in a file, None if it is missing or "max"."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
