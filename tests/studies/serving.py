"""Compare glesam-serve to the predictor in one run: clicks, images per second, and memory.

`make bench-serve` prints the table of docs/serving.md. An argument is a bundle folder; the default
is the built-in nano. The environment variables SERVE_BACKEND and SERVE_THREADS choose the engine of
both sides. Everything compared runs in turns, because other programs share the CPU.
"""

from __future__ import annotations

import io
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from glesam_runtime import EngineOptions, GleSamPredictor, read_image
from glesam_runtime.demo import sample_image
from glesam_runtime.masks import mask_to_xywh
from glesam_runtime.prompts import as_batch
from glesam_runtime.rle import encode_rle

CLICKS, ROUNDS, CLIENTS = 60, 3, 16
IMAGES_PER_ROUND = 48
LARGE = (4000, 3000)
"""Width and height of the pictures that another client uploads, 12 megapixels."""


def main() -> None:
    """Print the figures."""
    bundle = sys.argv[1] if len(sys.argv) > 1 else None
    backend = os.environ.get("SERVE_BACKEND", "onnxruntime")
    threads = os.environ.get("SERVE_THREADS")
    options = EngineOptions(threads=int(threads)) if threads else None
    predictor = GleSamPredictor(bundle, backend=backend, options=options)
    arguments = [*([bundle] if bundle else []), "--backend", backend]
    arguments += ["--threads", threads] if threads else []
    with _Server(arguments) as server:
        print(f"{predictor.bundle.manifest.model.preset} on {predictor.engine.describe()}")
        _clicks(server, predictor)
        _images(server, predictor)
        _beside_uploads(server)
        print(f"peak memory of the server: {server.peak_memory() >> 20} MiB")


def _clicks(server: _Server, predictor: GleSamPredictor) -> None:
    """Time a click on a cached image, in turns with the predictor's own work for it."""
    http = server.client()
    name = http.post("/v1/images", content=_png(sample_image())).json()["image_id"]
    predictor.set_image(sample_image())
    point = [[245, 300]]
    _, prompt = as_batch(predictor.geometry, point, [1])
    body = {"prompts": [{"points": point}]}

    def decode() -> None:
        predictor.decode(prompt, False)

    def answer() -> None:
        low_res, _ = predictor.decode(prompt, False)
        mask = predictor.binarize(low_res).masks[0, 0]
        mask_to_xywh(mask)
        encode_rle(mask)

    def click() -> None:
        http.post(f"/v1/images/{name}/segment", json=body).raise_for_status()

    times = _in_turns([decode, answer, click], CLICKS * ROUNDS)
    for label, each in zip(
        ("predictor.decode", "decode, mask and RLE", "click over HTTP"), times, strict=True
    ):
        print(f"{label:24s} median {_ms(each, 0.5)} ms, p99 {_ms(each, 0.99)} ms")
    added = [1000 * (c - a) for a, c in zip(times[1], times[2], strict=True)]
    print(f"added by the server, median of the pairs: {statistics.median(added):.2f} ms")


def _images(server: _Server, predictor: GleSamPredictor) -> None:
    """Encode and segment images: a loop over the predictor, then 16 clients, in turns."""
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"loop": [], "clients": []}
    files_folder = Path(server.folder)
    for _ in range(ROUNDS):
        pictures = [
            np.clip(sample_image().astype(int) + rng.integers(-20, 20, 3), 0, 255).astype(np.uint8)
            for _ in range(IMAGES_PER_ROUND)
        ]
        files = [_jpeg(picture) for picture in pictures]
        paths = [files_folder / f"{index}.jpg" for index in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)
        start = time.perf_counter()
        for path in paths:
            predictor.set_image(read_image(path))
            masks, _, _ = predictor.predict([[245, 300]], [1], multimask_output=False)
            encode_rle(masks[0])
        seconds["loop"].append(time.perf_counter() - start)
        clients = [server.client() for _ in range(CLIENTS)]

        def send(
            index: int,
            clients: list[httpx.Client] = clients,
            files: list[bytes] = files,
        ) -> None:
            form = {"image": files[index], "request": '{"prompts":[{"points":[[245,300]]}]}'}
            answer = clients[index % CLIENTS].post("/v1/segment", files=form)
            answer.raise_for_status()

        start = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(send, range(len(files))))
        seconds["clients"].append(time.perf_counter() - start)
    loop, clients_rate = (IMAGES_PER_ROUND / statistics.median(seconds[k]) for k in seconds)
    ratios = [a / b for a, b in zip(seconds["loop"], seconds["clients"], strict=True)]
    print(
        f"images per second: loop over the predictor {loop:.1f}, {CLIENTS} clients "
        f"{clients_rate:.1f}; ratio, median of the rounds: {statistics.median(ratios):.2f}"
    )


def _beside_uploads(server: _Server) -> None:
    """Time clicks while another client uploads pictures of 12 megapixels all the time."""
    http, other = server.client(), server.client()
    name = http.post("/v1/images", content=_png(sample_image())).json()["image_id"]
    body = {"prompts": [{"points": [[245, 300]]}]}
    done, uploads = threading.Event(), 0
    small = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)

    def upload() -> None:
        nonlocal uploads
        picture = Image.fromarray(small).resize(LARGE)
        while not done.is_set():
            picture.putpixel((0, 0), (uploads % 256, uploads // 256, 0))
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=90)
            other.post("/v1/images", content=file.getvalue()).raise_for_status()
            uploads += 1

    def click() -> None:
        http.post(f"/v1/images/{name}/segment", json=body).raise_for_status()

    worker = threading.Thread(target=upload)
    worker.start()
    (times,) = _in_turns([click], CLICKS * 3)
    done.set()
    worker.join()
    print(
        f"click beside uploads     median {_ms(times, 0.5)} ms, p99 {_ms(times, 0.99)} ms "
        f"({uploads} pictures of 12 megapixels meanwhile)"
    )


def _in_turns(works: list[Callable[[], None]], count: int) -> list[list[float]]:
    """Run each work in turn, `count` times, and return the seconds of each run."""
    for work in works:
        work()
    times: list[list[float]] = [[] for _ in works]
    for _ in range(count):
        for work, mine in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            mine.append(time.perf_counter() - start)
    return times


def _ms(times: list[float], quantile: float) -> str:
    return f"{1000 * sorted(times)[int(quantile * (len(times) - 1))]:.1f}"


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


class _Server:
    """A glesam-serve process on a free port."""

    def __init__(self, arguments: list[str]) -> None:
        import tempfile

        self._temporary = tempfile.TemporaryDirectory()
        self.folder = self._temporary.name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-c", "from glesam_serving.cli import main; main()"]
        self._process = subprocess.Popen(
            [*command, *arguments, "--port", str(port), "--max-body-mib", "64"],
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _Server:
        assert self._process.stdout is not None
        self._url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._temporary.cleanup()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, timeout=120)

    def peak_memory(self) -> int:
        """Return the largest resident memory so far in bytes (Linux)."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0


if __name__ == "__main__":
    main()
