"""Describe the fields of JSON files as tables, from the source of their types."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FIRST = ("Manifest", "Results")
"""The types of whole files. Their tables come first."""

_BOUNDS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}


def markdown(*modules: str) -> str:
    """Return a heading and a table for each type, and one table of the named value types."""
    bodies = [_source(module).body for module in modules]
    records = [node for body in bodies for node in body if isinstance(node, ast.ClassDef)]
    records = [node for node in records if not node.name.startswith("_")]
    records.sort(key=lambda node: node.name not in FIRST)
    parts = [_record(node) for node in records]
    rows = [row for body in bodies for row in _named_values(body)]
    parts.append("### Named values\n\n| name | values |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _source(module: str) -> ast.Module:
    return ast.parse((ROOT / f"runtime/glesam_runtime/{module}.py").read_text())


def _record(node: ast.ClassDef) -> str:
    """Describe one JSON object."""
    rows = "\n".join(_fields(node))
    text = _paragraphs(ast.get_docstring(node) or "")
    return f"### {node.name}\n\n{text}\n\n| field | value | meaning |\n|---|---|---|\n{rows}\n"


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """Describe each field: its name, its type, and the docstring below it."""
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign):
            continue
        meaning = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            meaning = _one_line(str(following.value.value))
        value = _type(statement.annotation)
        if statement.value is not None:
            value += ", optional"
        yield f"| `{ast.unparse(statement.target)}` | {value} | {meaning} |"


def _named_values(body: list[ast.stmt]) -> Iterator[str]:
    """Describe the names that stand for a set of values, such as `Level`."""
    for node in body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][a-z]\w*", target.id):
            yield f"| `{target.id}` | {_type(node.value)} |"


def _type(node: ast.expr) -> str:
    """Return a type in words: "number, greater than 0" for Annotated[float, Meta(gt=0)]."""
    if isinstance(node, ast.BinOp):
        return " or ".join(dict.fromkeys((_type(node.left), _type(node.right))))
    if isinstance(node, ast.Subscript):
        kind = ast.unparse(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if kind == "Literal":
            return ", ".join(f"`{each.value}`" for each in inner if isinstance(each, ast.Constant))
        if kind == "Annotated":
            return ", ".join([_type(inner[0]), *_constraints(inner[1:])])
        if kind == "dict":
            return f"object: {_type(inner[0])} to {_type(inner[1])}"
        if kind == "tuple" and ast.unparse(inner[-1]) == "...":
            return f"list of {_type(inner[0])}"
        if kind == "tuple":
            return f"list of {len(inner)}: {_type(inner[0])}"
    text = ast.unparse(node)
    plain = {
        "str": "string",
        "int": "integer",
        "float": "number",
        "bool": "boolean",
        "None": "null",
        "UnsetType": "absent",
    }
    return plain.get(text, f"`{text}`")


def _constraints(metas: list[ast.expr]) -> Iterator[str]:
    for meta in metas:
        for keyword in meta.keywords if isinstance(meta, ast.Call) else []:
            value = ast.unparse(keyword.value)
            if keyword.arg in _BOUNDS:
                yield f"{_BOUNDS[keyword.arg]} {value}"
            elif keyword.arg == "pattern":
                yield "pattern `" + str(ast.literal_eval(keyword.value)).replace("|", "\\|") + "`"
            elif keyword.arg == "max_length":
                yield f"at most {value} characters"


def _one_line(text: str) -> str:
    return _escape(" ".join(text.split()))


def _paragraphs(text: str) -> str:
    return "\n\n".join(_one_line(part) for part in text.split("\n\n"))


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
