"""What this machine is: engines compute by what the CPU can do."""

from __future__ import annotations

import platform
import re
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The CPU's name and what it can do; elsewhere than on Linux, what the platform tells."""
    if not _CPU_INFO.exists():
        return f"{platform.machine()} {platform.processor()}"
    lines = _CPU_INFO.read_text(errors="replace")
    found = re.findall(r"^(?:model name|flags|Features|CPU part)\s*: (.*)$", lines, re.MULTILINE)
    return " ".join(dict.fromkeys(found))
