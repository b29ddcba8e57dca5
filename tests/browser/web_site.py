"""Serve a static site with faults, and hold a script that runs the library in its page."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ENGINE_FILES = Path(__file__).parents[2] / "serving/web/node_modules/onnxruntime-web/dist"

PAUSE = 2
"""Seconds between the last byte and the end of a connection that breaks off."""

PREDICT = """async (cases) => {
  const { GleSamPredictor, encodeRle, openBundle, preprocess } = await import("./glesam/glesam.js");
  const ort = await import("./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./ort/", document.baseURI).href;
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const bundle = await openBundle(new URL("bundle/", document.baseURI));
  const predictor = await GleSamPredictor.load(bundle, { ort });
  const answers = [];
  for (const { pixels, width, height, prompt } of cases) {
    const image = { data: bytes(pixels), width, height };
    const { tensor } = preprocess(image, bundle.manifest.preprocessing);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", tensor.data));
    await predictor.setImage(image);
    const { masks, iou_predictions } = await predictor.predict(prompt);
    answers.push({
      tensor: Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join(""),
      rles: masks.map((each) => each.map(encodeRle)),
      scores: [...iou_predictions.data],
    });
  }
  return answers;
}"""
"""Segments images in the page, and returns the SHA-256 of the encoder's input and the masks."""


@dataclass
class Faults:
    """What the server does wrong, by the path of a file."""

    missing: set[str] = field(default_factory=set)
    replaced: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    """The connection closes after so many bytes, but only the first time."""
    ranges: list[str] = field(default_factory=list)
    """The Range headers that were received."""


def without_service_worker(folder: Path, copy: Path) -> Path:
    """Copy a site, and leave out what isolates its page on a plain host."""
    shutil.copytree(folder, copy)
    described = json.loads((copy / "site.json").read_bytes())
    (copy / "site.json").write_text(json.dumps({**described, "service_worker": None}))
    return copy


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, faults: Faults, **kwargs: Any) -> None:
        self._faults = faults
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        faults, path = self._faults, urlsplit(self.path).path
        if path in faults.missing:
            self.send_error(404)
            return
        found = Path(self.translate_path(self.path))
        if path not in faults.replaced and path not in faults.cut and not self.headers["Range"]:
            super().do_GET()
            return
        content = faults.replaced.get(path) or found.read_bytes()
        start = 0
        if asked := self.headers["Range"]:
            faults.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = faults.cut.pop(path, len(content))
        self.wfile.write(content[start:stop])
        if stop < len(content):
            # The browser drops bytes that the page has not read when the connection closes.
            time.sleep(PAUSE)
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def static_host(folder: Path, faults: Faults | None = None) -> Iterator[str]:
    """Serve a folder without any of the headers that isolate a page; yield its address."""
    handler = partial(_Handler, directory=str(folder), faults=faults or Faults())
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
