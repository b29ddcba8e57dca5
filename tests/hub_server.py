"""A server on this machine that speaks the part of the Hugging Face Hub's API that bundles need."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE = 1 << 20
"""Files of more bytes go through Git LFS, as on the hub."""


@dataclass
class Repo:
    """A repository: its commits in order, and who may read it."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False

    @property
    def head(self) -> str | None:
        return next(reversed(self.commits), None)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit and return its hash."""
        text = f"{len(self.commits)}{sorted(files)}"
        name = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.commits[name] = files
        return name


class HubServer(ThreadingHTTPServer):
    """The server, its repositories, and what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        """Files whose next download ends after this many bytes."""
        self.broken: set[str] = set()
        """Files that cannot be downloaded."""
        self.write_token: str | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def _answer(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("Size", str(len(data))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def do_HEAD(self) -> None:
        self._resolve()

    def do_GET(self) -> None:
        self._resolve()

    def _resolve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+?)/([^/]+)", path)
        repo = self.server.repos.get(match[1]) if match else None
        if match is None or repo is None:
            self._answer(404, X_Error_Code="RepoNotFound")
            return
        if repo.gated:
            self._answer(403, X_Error_Code="GatedRepo")
            return
        if repo.token is not None and self._token() is None:
            self._answer(401, X_Error_Code="RepoNotFound")
            return
        if repo.token is not None and self._token() != repo.token:
            self._answer(401, X_Error_Message="Invalid credentials in Authorization header")
            return
        commit = repo.head if match[2] == "main" else match[2]
        if commit not in repo.commits:
            self._answer(404, X_Error_Code="RevisionNotFound")
            return
        content = repo.commits[commit].get(match[3])
        if content is None:
            self._answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        if match[3] in self.server.broken and self.command == "GET":
            self._answer(418, X_Error_Message="out of order")
            return
        tag = hashlib.sha256(content).hexdigest()
        headers = {"X_Repo_Commit": commit, "ETag": f'"{tag}"', "Accept_Ranges": "bytes"}
        if self.command == "HEAD":
            self._answer(200, Size=str(len(content)), **headers)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        if asked:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        end = self.server.cut.pop(match[3], None)
        if end is None:
            self._answer(206 if asked else 200, content[start:], **headers)
            return
        self.send_response(200)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:end])
        self.wfile.flush()
        self.close_connection = True

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[hashlib.sha256(data).hexdigest()] = data
        self._answer(200)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.write_token is None or self._token() != self.server.write_token:
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in self.server.repos
            self.server.repos.setdefault(name, Repo())
            url = f"{self.server.url}/{name}"
            self._answer(409 if known else 200, {"url": url, "name": name, "id": "1"})
        elif path == "/api/validate-yaml":  # the card's front matter
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["size"] > LARGE else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        else:
            self._commit(path, body)

    def _commit(self, path: str, body: bytes) -> None:
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path)
        if match is None:
            self._answer(404)
            return
        files: dict[str, bytes] = {}
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        commit = self.server.repos[match[1]].commit(files)
        url = f"{self.server.url}/{match[1]}/commit/{commit}"
        self._answer(200, {"success": True, "commitOid": commit, "commitUrl": url})


@contextlib.contextmanager
def serve_hub() -> Iterator[HubServer]:
    """Run a server without repositories while the block runs."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def serve_empty_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Let huggingface_hub use such a server, with an empty cache, from an empty folder."""
    from huggingface_hub import constants

    monkeypatch.chdir(folder)
    with serve_hub() as server:
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server
