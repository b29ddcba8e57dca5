"""Lend the toy bundle to the attacks, and print a summary of them."""

from __future__ import annotations

from typing import Any

from ..runtime.conftest import make_toy_bundle as make_toy_bundle

_SHOWN = 5


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the number of cases by kind, the slowest, and those that take most memory."""
    found = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "attack"
    ]
    if not found:
        return
    kinds: dict[str, int] = {}
    for kind, *_ in found:
        kinds[kind] = kinds.get(kind, 0) + 1
    line = terminalreporter.write_line
    terminalreporter.section("attacks")
    line(f"{len(found)} cases: " + ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds)))
    for title, column, unit in (("slowest", 2, "s of CPU time"), ("largest", 3, "MiB")):
        for each in sorted(found, key=lambda case: -case[column])[:_SHOWN]:
            line(f"{title}: {each[column]:.2f} {unit}, {each[0]}: {each[1]}")
