"""Answer the clicks of Label Studio's smart tools with the masks of a glesam-serve server.

Label Studio calls such a program an ML backend. It sends the points and boxes of one object, and
draws the brush mask of the answer. `README.md` beside this file says how to connect the three.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4
from xml.etree import ElementTree

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from glesam_runtime.errors import GlesamError, InputError
from glesam_serving import Client

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import Request
    from numpy.typing import NDArray

_IMAGES = 32
"""Images whose files are kept in memory. The server has a cache of its own for what it encoded."""
_RUN_BITS = (4, 8, 12, 16)
"""Widths of the numbers that hold a run's length; each run takes the smallest that fits."""


@dataclass(frozen=True)
class Prompt:
    """The points and the box of one object, in pixels of the image."""

    points: list[list[float]]
    labels: list[int]
    box: list[float] | None
    name: str
    """The label that the annotator selected."""


def read_regions(regions: Sequence[dict[str, Any]]) -> Prompt:
    """Return what the regions of Label Studio's smart tools ask for. Its units are percent.

    Raises:
        InputError: there is no region, or one is neither a key point nor a rectangle.
    """
    points: list[list[float]] = []
    labels: list[int] = []
    box, name = None, ""
    for region in regions:
        kind, value = region["type"], region["value"]
        if kind not in ("keypointlabels", "rectanglelabels"):
            raise InputError(
                f"a region of the type {kind}: cannot be a prompt; use a smart KeyPointLabels or "
                "RectangleLabels"
            )
        width, height = region["original_width"], region["original_height"]
        x, y = value["x"] * width / 100, value["y"] * height / 100
        name = value[kind][0]
        if kind == "keypointlabels":
            points.append([x, y])
            labels.append(int(region.get("is_positive", True)))
        else:
            box = [x, y, x + value["width"] * width / 100, y + value["height"] * height / 100]
    if not points and box is None:
        raise InputError("the request has no region; draw a point or a box with a smart tool")
    return Prompt(points, labels, box, name)


def find_controls(config: str) -> tuple[str, str, str]:
    """Return the names of the first BrushLabels and of its image, and the task's field with it.

    Raises:
        InputError: the labeling configuration has no BrushLabels for an Image.
    """
    root = ElementTree.fromstring(config)
    brush = root.find(".//BrushLabels")
    if brush is not None:
        for image in root.iter("Image"):
            if image.get("name") == brush.get("toName"):
                field_name = (image.get("value") or "").removeprefix("$")
                return brush.get("name") or "", image.get("name") or "", field_name
    raise InputError("the labeling configuration has no BrushLabels for an Image; add one")


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Return a mask [H, W] as Label Studio's brush stores it: packed runs of RGBA bytes, 0 or 255.

    The head has the number of bytes (32 bits), their width less 1 (5 bits) and the four widths of
    a run's length less 1 (4 bits each). Each run is a 1, the number of its width (2 bits), its
    length less 1, and the byte that it repeats.
    """
    flat = mask.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(np.append(starts, flat.size)) * 4
    bits = [f"{flat.size * 4:032b}{7:05b}", *(f"{width - 1:04b}" for width in _RUN_BITS)]
    for inside, length in zip(flat[starts].tolist(), lengths.tolist(), strict=True):
        left = length
        while left:
            part = min(left, 1 << _RUN_BITS[-1])
            which = next(i for i, width in enumerate(_RUN_BITS) if part <= 1 << width)
            bits.append(f"1{which:02b}{part - 1:0{_RUN_BITS[which]}b}{255 * inside:08b}")
            left -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


@dataclass
class _Opened:
    client: Client
    lock: threading.Lock = field(default_factory=threading.Lock)


class Backend:
    """Segments images of one Label Studio with one server."""

    def __init__(self, label_studio: str, label_studio_key: str, server: str, key: str | None):
        self._address, self._server, self._key = label_studio.rstrip("/"), server, key
        self._label_studio_key = label_studio_key
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, _Opened] = OrderedDict()

    def version(self) -> str:
        """Return the name of the model that answers."""
        with Client(self._server, api_key=self._key) as client:
            bundle = client.bundle()
        return f"glesam-{bundle.model['preset']}-{bundle.sha256[:12]}"

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer Label Studio's request for one mask.

        Raises:
            InputError: the request cannot be used.
            ServerError: the server does not answer it.
        """
        brush, image_name, field_name = find_controls(request["label_config"])
        context = request["params"].get("context") or {}
        prompt = read_regions(context.get("result") or [])
        opened = self._open(request["tasks"][0]["data"][field_name])
        with opened.lock:
            image = opened.client.image
            assert image is not None
            masks, scores, _ = opened.client.predict(
                prompt.points or None, prompt.labels or None, prompt.box, multimask_output=False
            )
        score = float(scores[0])
        region = {
            "id": uuid4().hex[:10],
            "from_name": brush,
            "to_name": image_name,
            "type": "brushlabels",
            "original_width": image.width,
            "original_height": image.height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": encode_brush(masks[0].astype(bool)),
                "brushlabels": [prompt.name],
            },
            "score": score,
            "readonly": False,
        }
        return {"results": [{"result": [region], "score": score, "model_version": self.version()}]}

    def _open(self, url: str) -> _Opened:
        """Return a client that has sent the image of an address to the server."""
        with self._lock:
            opened = self._opened.get(url)
            if opened is None:
                opened = self._opened[url] = _Opened(Client(self._server, api_key=self._key))
            self._opened.move_to_end(url)
            if len(self._opened) > _IMAGES:
                self._opened.popitem(last=False)
        with opened.lock:
            if opened.client.image is None:
                opened.client.set_image(self._download(url))
        return opened

    def _download(self, url: str) -> bytes:
        """Return the file of an image. Only Label Studio's own address is asked.

        Raises:
            InputError: the image is elsewhere, or Label Studio does not give it.
        """
        whole = urljoin(f"{self._address}/", url)
        if urlsplit(whole)[:2] != urlsplit(self._address)[:2]:
            raise InputError(
                f"{url}: is not at {self._address}; import the file into Label Studio, or name "
                "its address with --label-studio"
            )
        try:
            answer = httpx.get(whole, headers=self._authorization(), timeout=30)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise InputError(
                f"{whole}: cannot be downloaded ({error}); check LABEL_STUDIO_API_KEY"
            ) from error
        return answer.content

    def _authorization(self) -> dict[str, str]:
        """Return the header for a key: a personal access token, or a legacy token without dots."""
        if "." not in self._label_studio_key:
            return {"Authorization": f"Token {self._label_studio_key}"}
        answer = httpx.post(
            f"{self._address}/api/token/refresh", json={"refresh": self._label_studio_key}
        )
        answer.raise_for_status()
        return {"Authorization": f"Bearer {answer.json()['access']}"}


def make_app(backend: Backend) -> FastAPI:
    """Return the app with the addresses that Label Studio calls."""
    app = FastAPI(title="glesam backend of Label Studio")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "glesam-serve"}

    @app.post("/setup")
    def setup(request: dict[str, Any]) -> dict[str, str]:
        """Check the labeling configuration. The token in the request is not used."""
        find_controls(request["schema"])
        return {"model_version": backend.version()}

    @app.post("/predict")
    def predict(request: dict[str, Any]) -> dict[str, Any]:
        return backend.predict(request)

    @app.exception_handler(GlesamError)
    def refuse(_: Request, error: Exception) -> JSONResponse:
        print(f"error: {error}", flush=True)
        return JSONResponse({"error": str(error)}, 422 if isinstance(error, InputError) else 502)

    return app


def main() -> None:
    """Run the backend until it is stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    studio, server = "http://127.0.0.1:8080", "http://127.0.0.1:8000"
    parser.add_argument("--label-studio", default=studio, help="address of Label Studio")
    parser.add_argument("--server", default=server, help="address of glesam-serve")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=9090, help="port to listen on")
    options = parser.parse_args()
    for option, url, such in (
        ("--label-studio", options.label_studio, studio),
        ("--server", options.server, server),
    ):
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            parser.error(f"{option} {url}: an address such as {such} is needed")
    if not 0 < options.port < 1 << 16:
        parser.error(f"--port {options.port}: must be a number from 1 to 65535")
    key = os.environ.get("LABEL_STUDIO_API_KEY")
    if not key:
        parser.error("the environment variable LABEL_STUDIO_API_KEY is empty; set it to a token")
    backend = Backend(options.label_studio, key, options.server, os.environ.get("GLESAM_API_KEY"))
    uvicorn.run(make_app(backend), host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
