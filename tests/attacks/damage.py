"""Damage sound files: cut them, flip bits, and change values in JSON documents."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Raw:
    """A piece of JSON as it is spelled, which `json` would not write."""

    text: str | bytes


def flipped(content: bytes, random: random.Random, bits: int = 1) -> bytes:
    """Return the content with some bits inverted."""
    changed = bytearray(content)
    for _ in range(bits):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(content: bytes, random: random.Random) -> bytes:
    """Return the first part of the content, up to a random byte."""
    return content[: random.randrange(1, len(content))]


def sparse(path: Path, size: int, start: bytes = b"") -> Path:
    """Write a file that has `size` bytes and takes no space: zeros after `start`."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    """Return brackets within brackets."""
    return opening * depth + closing * depth


def changed(document: Any, path: str, value: Any) -> bytes:
    """Return a JSON document with the value at a path such as "stages.encoder.inputs.0" replaced.

    An empty path replaces the document. `Raw` is written as it is spelled.
    """
    mark = "replaced-here"
    raw = isinstance(value, Raw)
    if path:
        *parents, last = path.split(".")
        inner = document
        for name in parents:
            inner = inner[int(name) if isinstance(inner, list) else name]
        inner[int(last) if isinstance(inner, list) else last] = mark if raw else value
    else:
        document = mark if raw else value
    text = json.dumps(document, indent=2).encode()
    if not raw:
        return text
    spelled = value.text.encode() if isinstance(value.text, str) else value.text
    return text.replace(json.dumps(mark).encode(), spelled)


def manifest_of(bundle: Path) -> Any:
    """Return the manifest of a bundle as a JSON document."""
    return json.loads((bundle / "manifest.json").read_bytes())


def sign(bundle: Path) -> Path:
    """Correct sizes and hashes in the manifest, so that damaged files count as intact."""
    manifest = manifest_of(bundle)
    for ref in _file_refs(manifest):
        path = bundle / ref["file"]
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        ref["bytes"], ref["sha256"] = path.stat().st_size, digest.hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def _file_refs(node: Any) -> Iterator[dict[str, Any]]:
    """Yield each object that names a file with its size."""
    if isinstance(node, dict):
        if {"file", "bytes", "sha256"} <= node.keys():
            yield node
        for child in node.values():
            yield from _file_refs(child)
    elif isinstance(node, list):
        for child in node:
            yield from _file_refs(child)
