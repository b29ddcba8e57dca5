"""Serve the page's files: only those found at the start, whatever path is asked for.

Small files are held in memory. The graphs and the engine of a site that `glesam-export web` wrote
are read from the disk.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import FileResponse, Response

from glesam_runtime.errors import InputError
from glesam_serving.server.guard import no_such

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from starlette.requests import Request

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "wasm": "application/wasm",
    "onnx": "application/octet-stream",
    "data": "application/octet-stream",
    "safetensors": "application/octet-stream",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "json": "application/json",
    "ico": "image/x-icon",
    "webmanifest": "application/manifest+json",
}


SITE = "site.json"
"""The file in which a site says what it holds."""
_LARGE = 1 << 20
"""Files of more bytes are read from the disk for each answer."""


@dataclass(frozen=True)
class _File:
    content: bytes | Path
    media_type: str
    tag: str


class Page:
    """The files of the page, by their paths."""

    def __init__(self, site: Path | None = None) -> None:
        """Read the files.

        Args:
            site: a folder of `glesam-export web`; None is the package's own page.
        """
        self._files: dict[str, _File] = {}
        self._add(site or files("glesam_serving") / "page", "/")
        if site is not None:
            # The page then offers the ways that need a server.
            described = json.loads((site / SITE).read_bytes())
            content = json.dumps({**described, "server": True, "service_worker": None}).encode()
            self._files[f"/{SITE}"] = _file(content, "application/json")
        if "/index.html" in self._files:
            self._files["/"] = self._files["/index.html"]

    def _add(self, folder: Traversable, path: str) -> None:
        if not folder.is_dir():
            return
        for entry in folder.iterdir():
            if entry.is_dir():
                self._add(entry, f"{path}{entry.name}/")
                continue
            kind = _TYPES.get(entry.name.rpartition(".")[2])
            if kind is None:
                continue
            if isinstance(entry, Path) and entry.stat().st_size > _LARGE:
                self._files[path + entry.name] = _File(entry, kind, "")
            else:
                self._files[path + entry.name] = _file(entry.read_bytes(), kind)

    async def file(self, request: Request) -> Response:
        """Return a file of the page."""
        found = self._files.get(request.url.path)
        if found is None:
            raise no_such(dict(request.scope))
        if isinstance(found.content, Path):
            return FileResponse(
                found.content, headers={"Cache-Control": "no-cache"}, media_type=found.media_type
            )
        headers = {"ETag": found.tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        return Response(found.content, headers=headers, media_type=found.media_type)


def check_site(folder: Path) -> None:
    """Refuse a folder that is not a site.

    Raises:
        InputError: it has no readable site.json.
    """
    try:
        described = json.loads((folder / SITE).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"--page {folder}: has no readable {SITE}; write the folder with glesam-export web"
        ) from error
    if not isinstance(described, dict):
        raise InputError(f"--page {folder}: {SITE} is not an object; write the folder again")


def _file(content: bytes, kind: str) -> _File:
    return _File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
