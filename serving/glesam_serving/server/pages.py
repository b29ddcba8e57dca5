"""Serve the page's files from memory: only what the package holds, whatever path is asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response

from glesam_serving.server.guard import no_such

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from starlette.requests import Request

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "json": "application/json",
    "ico": "image/x-icon",
    "webmanifest": "application/manifest+json",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    tag: str


class Page:
    """The files of the page, by their paths."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._add(files("glesam_serving") / "page", "/")
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
            if kind is not None:
                content = entry.read_bytes()
                tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                self._files[path + entry.name] = _File(content, kind, tag)

    async def file(self, request: Request) -> Response:
        """Return a file of the page."""
        found = self._files.get(request.url.path)
        if found is None:
            raise no_such(dict(request.scope))
        headers = {"ETag": found.tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        return Response(found.content, headers=headers, media_type=found.media_type)
