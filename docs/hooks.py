"""Generate the pages of the site that have their source elsewhere (a hook of MkDocs).

Commands come from the Typer apps, the Python reference from `glesam_runtime.__all__`, the
manifest's fields from its types, the C reference from the headers, and the project's pages from
the Markdown files beside `docs/`. None of them can therefore be out of date.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))
import command_line
import json_fields
from command_line import ROOT
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Callable

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

HEADERS = {
    "C": "runtime/cpp/include/glesam_c.h",
    "C, contexts": "runtime/cpp/include/glesam_c_context.h",
    "C, calls": "runtime/cpp/include/glesam_c_calls.h",
    "C, everything": "runtime/cpp/include/glesam_c_everything.h",
    "C, videos": "runtime/cpp/include/glesam_follow_c.h",
    "C++": "runtime/cpp/include/glesam.h",
    "C++, everything": "runtime/cpp/include/glesam_everything.h",
    "C++, videos": "runtime/cpp/include/glesam_follow.h",
}
PROJECT_PAGES = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "RELEASING.md": "project/releasing.md",
    "SECURITY.md": "project/security.md",
}
OUTSIDE = {
    **PROJECT_PAGES,
    "README.md": "index.md",
    **dict.fromkeys(HEADERS.values(), "reference/c.md"),
}
"""Files outside docs/ -> the page of the site that shows them."""
FIELDS_MARKS = {
    "contract.md": (
        "<!-- fields of the manifest: docs/hooks.py puts them here -->",
        ("manifest", "target", "enhancement_gate"),
    ),
    "json.md": ("<!-- fields of the results: docs/hooks.py puts them here -->", ("results",)),
}
"""Page -> the line that its tables of fields replace, and the modules that define the fields."""

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```$|~~~.*?^~~~$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "reference/commands.md": _commands_page(),
        "reference/python.md": _python_page(),
        "reference/c.md": _c_page(),
    }
    for source, target in PROJECT_PAGES.items():
        text = (ROOT / source).read_text()
        pages[target] = _outside_code(text, lambda part, at=target: _from_root(part, at))
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the fields of JSON files, and point links that leave docs/ to a page of the site."""
    if page.file.src_uri in FIELDS_MARKS:
        mark, modules = FIELDS_MARKS[page.file.src_uri]
        if mark not in markdown:
            raise ValueError(f"docs/{page.file.src_uri}: the line {mark!r} is missing")
        markdown = markdown.replace(mark, json_fields.markdown(*modules))
    return _outside_code(markdown, lambda part: _links_inside(part, page.file.src_uri))


def _commands_page() -> str:
    """Return the reference of every command."""
    command_line.import_from_the_checkout()
    parts = [
        "# Command line\n\n"
        "This page is generated from the programs. `COMMAND --help` prints the same.\n\n"
        "Exit codes of every command: 0 for success, 1 for a result outside its gate or a fault of "
        "the program, 2 for bad input, 130 after Ctrl-C. An error is one line on stderr; `--debug` "
        "adds the traceback.\n"
    ]
    parts += [command_line.markdown(*each) for each in command_line.commands().items()]
    return "\n".join(parts)


def _python_page() -> str:
    """Return the reference of the names that `glesam_runtime` exports."""
    names = _public_names()
    groups = {
        "Classes": [n for n in names if n[0].isupper() and not n.endswith("Error")],
        "Functions": [n for n in names if n[0].islower()],
        "Errors": [n for n in names if n.endswith("Error")],
    }
    parts = [
        "# Python\n\n"
        "These names are the public API: `from glesam_runtime import ...`. "
        "[Stability](../stability.md) says what that promises.\n"
    ]
    for title, members in groups.items():
        parts.append(f"## {title}\n")
        parts += [f"::: glesam_runtime.{name}\n" for name in members]
    return "\n".join(parts)


def _public_names() -> list[str]:
    """Return `glesam_runtime.__all__`, without importing the package."""
    tree = ast.parse((ROOT / "runtime/glesam_runtime/__init__.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value), key=str.lower)
    raise ValueError("runtime/glesam_runtime/__init__.py: has no __all__ that is a plain list")


def _c_page() -> str:
    """Return the headers of the C and C++ library."""
    parts = [
        "# C and C++\n\n"
        "The headers are the reference. [Embedding in C++](../embedding.md) shows how to build, "
        "link and call the library.\n"
    ]
    for title, header in HEADERS.items():
        code = (ROOT / header).read_text().rstrip()
        language = "cpp" if title.startswith("C++") else "c"
        parts.append(f"## {title}\n\n`{header}`\n\n```{language}\n{code}\n```\n")
    return "\n".join(parts)


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to the parts of a page that are not in a fenced block."""
    return "".join(
        part if part.startswith(("```", "~~~")) else change(part) for part in _FENCE.split(text)
    )


def _from_root(text: str, page: str) -> str:
    """Rewrite links of a file beside docs/ for its page in the site."""
    up = "../" * page.count("/")

    def rewrite(match: re.Match[str]) -> str:
        label, target = match.groups()
        if "://" in target or target.startswith("#"):
            return match.group()
        path, _, anchor = target.partition("#")
        inside = path.removeprefix("docs/") if path.startswith("docs/") else OUTSIDE.get(path)
        if inside is None or inside.endswith("/"):
            return _plain(label, path)
        return f"[{label}]({up}{inside}{'#' + anchor if anchor else ''})"

    return _LINK.sub(rewrite, text)


def _links_inside(text: str, page: str) -> str:
    """Rewrite a page's links to files outside docs/."""
    folder = PurePosixPath("docs", page).parent
    up = "../" * page.count("/")

    def rewrite(match: re.Match[str]) -> str:
        label, target = match.groups()
        path = target.partition("#")[0]
        if "://" in target or not path.startswith("../"):
            return match.group()
        parts: list[str] = []
        for part in (folder / path).parts:
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        if parts[:1] == ["docs"]:
            return match.group()
        inside = OUTSIDE.get("/".join(parts))
        return f"[{label}]({up}{inside})" if inside else _plain(label, "/".join(parts))

    return _LINK.sub(rewrite, text)


def _plain(label: str, path: str) -> str:
    """Return a link's label without the link; the path stands beside it where it says more."""
    return label if path in label.replace("`", "") else f"{label} (`{path}`)"
