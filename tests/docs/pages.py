"""Read the code blocks of the pages, with the comments that say where they run."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

ROOT = Path(__file__).parents[2]
Environment = Literal["full", "runtime"]
RUN = ("bash", "python")
"""Languages whose blocks are run."""

_FENCE = re.compile(r"^(\s*)```(\w*)\s*$")
_COMMENT = re.compile(r"^\s*<!-- (environment|not run|page not run): (.+) -->\s*$")
_INDENTED = re.compile(r"^ {4}\S")
_LIST_ITEM = re.compile(r"^\s*([-*]|\d+\.) ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the file, relative to the repository.
        line: the number of the block's first line of code.
        language: the word behind the fence, "" without one.
        code: the lines, without the fence's indentation.
        environment: "full" (.venv) or "runtime" (only what the page installs).
        not_run: why the block is not run, None if it is.
    """

    page: str
    line: int
    language: str
    code: str
    environment: Environment
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return every page with commands, README first: its commands make what others use."""
    first = ["README.md", "docs/index.md"]
    rest = ["CONTRIBUTING.md", "RELEASING.md", "SECURITY.md"]
    guide = [f"docs/guide/{name}.md" for name in ("install", "first-mask", "export")]
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    others = [page for page in found if page not in first + guide and "/adr/" not in page]
    return [*first, *guide, *others, *rest]


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page.

    Raises:
        ValueError: a comment names an unknown environment, or a fence is not closed.
    """
    environment: Environment = "full"
    page_reason: str | None = None
    reason: str | None = None
    lines = iter(enumerate((ROOT / page).read_text().splitlines(), 1))
    for number, line in lines:
        if comment := _COMMENT.match(line):
            kind, text = comment.groups()
            if kind == "environment":
                if text not in ("full", "runtime"):
                    raise ValueError(f"{page}:{number}: environment {text!r} is not known")
                environment = "runtime" if text == "runtime" else "full"
            elif kind == "not run":
                reason = text
            else:
                page_reason = text
        elif fence := _FENCE.match(line):
            indent, language = fence.groups()
            code = []
            for _, inside in lines:
                if inside.strip() == "```":
                    break
                code.append(inside.removeprefix(indent))
            else:
                raise ValueError(f"{page}:{number}: the block is not closed")
            text = "\n".join(code)
            yield Block(page, number + 1, language, text, environment, reason or page_reason)
            reason = None
        elif line.strip():
            reason = None


def prose(page: str) -> str:
    """Return a page without its blocks, every line still at its place."""
    inside, kept = False, []
    for line in (ROOT / page).read_text().splitlines():
        if line.strip().startswith("```"):
            inside = not inside
            kept.append("")
        else:
            kept.append("" if inside else line)
    return "\n".join(kept)


def indented_blocks(page: str) -> list[int]:
    """Return the lines at which code begins that is indented instead of fenced."""
    found, in_list, previous = [], False, ""
    for number, line in enumerate(prose(page).splitlines(), 1):
        if line and not line[0].isspace():
            in_list = bool(_LIST_ITEM.match(line))
        if _INDENTED.match(line) and not in_list and not previous.strip():
            found.append(number)
        previous = line
    return found


def load_command_line() -> ModuleType:
    """Import docs/command_line.py, which knows every command of the project."""
    spec = importlib.util.spec_from_file_location("command_line", ROOT / "docs/command_line.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
