"""Profiles as text."""

from __future__ import annotations

import msgspec

from glesam_benchmark.about import About
from glesam_benchmark.profile import Profile, StageProfile


class ProfileReport(msgspec.Struct, frozen=True):
    """The JSON of `glesam-bench profile`."""

    about: About
    engines: dict[str, Profile]
    """By what was asked for."""


def table(found: ProfileReport, top: int) -> str:
    """The costliest node types and nodes, `top` of each."""
    lines = [
        f"{found.about.model}; {found.about.host}; milliseconds, means of {found.about.rounds} runs"
    ]
    for name, profile in found.engines.items():
        engine = " ".join(profile.engine.values())
        for stage in profile.stages:
            lines += ["", f"{name}: {stage.stage} ({engine})", *_stage(stage, top)]
    return "\n".join(lines)


def _stage(stage: StageProfile, top: int) -> list[str]:
    total = sum(kind.seconds for kind in stage.types)
    lines = [
        f"  on the clock {1000 * stage.seconds:.2f}, counted {1000 * total:.2f}",
        f"  {'node type':<40}{'nodes':>8}{'ms':>12}{'share':>8}",
    ]
    for kind in stage.types[:top]:
        share = kind.seconds / total
        words = f"  {kind.type:<40.40}{kind.count:>8}"
        lines.append(f"{words}{1000 * kind.seconds:>12.3f}{share:>8.1%}")
    lines.append(f"  {'node':<68}{'ms':>12}{'share':>8}")
    for node in stage.nodes[:top]:
        words = f"{node.type}  {node.name}  {node.kernel}".rstrip()
        lines.append(f"  {words:<68.68}{1000 * node.seconds:>12.3f}{node.seconds / total:>8.1%}")
    return lines
