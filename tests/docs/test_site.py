"""The pages that the site generates: links, fields of the manifest, blocks."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from .pages import ROOT, Block, blocks, indented_blocks


def load(name: str) -> object:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("schema", "modules"),
    [
        ("manifest", ("manifest", "target", "enhancement_gate")),
        ("results", ("results",)),
        ("prompts", ("results",)),
    ],
)
def test_every_field_of_the_schema_is_described(schema: str, modules: tuple[str, ...]) -> None:
    types = json.loads((ROOT / f"docs/{schema}.schema.json").read_text())
    text = load("json_fields").markdown(*modules)  # type: ignore[attr-defined]
    for name, record in types["$defs"].items():
        if "properties" in record:
            start = text.index(f"### {name}\n")
            table = text[start : text.find("###", start + 4)]
            assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(
                record["properties"]
            )


def test_links_of_the_pages_beside_docs_lead_somewhere() -> None:
    for page in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
            assert "://" in target or (ROOT / target).exists(), f"{page}: {target}"


def test_every_decision_is_in_the_index_and_the_navigation() -> None:
    index = (ROOT / "docs/adr/index.md").read_text()
    navigation = (ROOT / "mkdocs.yml").read_text()
    for record in sorted((ROOT / "docs/adr").glob("0*.md")):
        assert f"({record.name})" in index
        assert f"adr/{record.name}" in navigation


def test_blocks_are_read_with_their_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(blocks.__globals__, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(
        "text\n\n```bash\nls\n```\n\n<!-- environment: runtime -->\n\n"
        "```python\nprint()\n```\n\n<!-- not run: needs a GPU -->\n```bash\nls a\n```\n\n"
        "<!-- not run: lost -->\ntext between\n\n1. list\n\n    ```bash\n    ls b\n    ```\n"
    )
    assert list(blocks("page.md")) == [
        Block("page.md", 4, "bash", "ls", "full", None),
        Block("page.md", 10, "python", "print()", "runtime", None),
        Block("page.md", 15, "bash", "ls a", "runtime", "needs a GPU"),
        Block("page.md", 24, "bash", "ls b", "runtime", None),
    ]


def test_indented_code_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(blocks.__globals__, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(
        "text\n\n    code\n\n- list\n\n    more of the item\n\ntext\n"
    )
    assert indented_blocks("page.md") == [3]
