"""Compare glesam-serve to the predictor in one run: clicks, images per second, and memory.

`make bench-serve` prints the table of docs/serving.md. An argument is a bundle folder; the default
is the built-in nano. The environment variables SERVE_BACKEND and SERVE_THREADS choose the engine of
both sides, and SERVE_NO_ENHANCE=1 leaves out the enhancer, which takes 3.4 GB twice at full size.
Everything compared runs in turns, because other programs share the CPU.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from tests.studies.processes import Server, empty_server, glesam_serve, peak_memory

from glesam_runtime import EngineOptions, GleSamPredictor, read_image
from glesam_runtime.demo import sample_image
from glesam_runtime.masks import mask_to_xywh
from glesam_runtime.prompts import as_batch
from glesam_runtime.rle import encode_rle

BLOCKS, CLICKS = 40, 5
"""Each kind of work runs `CLICKS` times in a row, after one run that is not timed, and then the
next kind takes its turn. Two processes that alternated after each run would push each other's
weights out of the processor's cache: that costs a click 1.2 ms, and no user pays it."""
ROUNDS, CLIENTS = 3, 16
FEW = 4
"""Blocks, and images of a round, for a model that takes more than a second an image."""
IMAGES_PER_ROUND = 48
LARGE = (4000, 3000)
"""Width and height of the pictures that another client uploads, 12 megapixels."""


def main() -> None:
    """Print the figures."""
    bundle = sys.argv[1] if len(sys.argv) > 1 else None
    backend = os.environ.get("SERVE_BACKEND", "onnxruntime")
    threads = os.environ.get("SERVE_THREADS")
    options = EngineOptions(threads=int(threads)) if threads else None
    plain = os.environ.get("SERVE_NO_ENHANCE") == "1"
    predictor = GleSamPredictor(bundle, backend=backend, options=options, enhance=not plain)
    arguments = [*([bundle] if bundle else []), "--backend", backend, "--max-body-mib", "64"]
    arguments += ["--timeout", "600", *(["--no-enhance"] if plain else [])]
    arguments += ["--threads", threads] if threads else []
    with glesam_serve(*arguments) as server:
        print(f"{predictor.bundle.manifest.model.preset} on {predictor.engine.describe()}")
        start = time.perf_counter()
        predictor.set_image(sample_image())
        slow = time.perf_counter() - start > 1
        _clicks(server, predictor, FEW if slow else BLOCKS)
        _images(server, predictor, FEW if slow else IMAGES_PER_ROUND, 1 if slow else ROUNDS)
        _beside_uploads(server, FEW if slow else BLOCKS)
        print(f"peak memory of the server: {peak_memory(server.process.pid) >> 20} MiB")


def _clicks(server: Server, predictor: GleSamPredictor, blocks: int) -> None:
    """Time a click on a cached image, in turns with the predictor's own work for it."""
    http = client(server)
    name = http.post("/v1/images", content=_png(sample_image())).json()["image_id"]
    predictor.set_image(sample_image())
    point = [[245, 300]]
    _, prompt = as_batch(predictor.geometry, point, [1])
    body = {"prompts": [{"points": point}]}
    path = f"/v1/images/{name}/segment"
    size = len(http.post(path, json=body).raise_for_status().content)

    def decode() -> None:
        predictor.decode(prompt, False)

    def answer() -> None:
        low_res, _ = predictor.decode(prompt, False)
        mask = predictor.binarize(low_res).masks[0, 0]
        mask_to_xywh(mask)
        encode_rle(mask)

    def click() -> None:
        http.post(path, json=body).raise_for_status()

    with empty_server(size) as empty:
        nothing = client(empty)

        def post() -> None:
            nothing.post(path, json=body).raise_for_status()

        works = {
            "predictor.decode": decode,
            "decode, mask and RLE": answer,
            "click over HTTP": click,
            "POST to an empty FastAPI": post,
        }
        times = dict(zip(works, _in_blocks(list(works.values()), blocks), strict=True))
    for label, each in times.items():
        print(f"{label:24s} median {_ms(each, 0.5)} ms, p99 {_ms(each, 0.99)} ms")
    clicks, floor = times["click over HTTP"], times["POST to an empty FastAPI"]
    for label in ("predictor.decode", "decode, mask and RLE"):
        added = [1000 * (c - a) for a, c in zip(times[label], clicks, strict=True)]
        ours = [1000 * (c - a - f) for a, c, f in zip(times[label], clicks, floor, strict=True)]
        print(
            f"a click adds to {label}, median of the pairs: {statistics.median(added):.2f} ms, "
            f"and {statistics.median(ours):.2f} ms without the empty POST"
        )


def _images(server: Server, predictor: GleSamPredictor, count: int, rounds: int) -> None:
    """Encode and segment images: a loop over the predictor, then 16 clients, in turns."""
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"loop": [], "clients": []}
    temporary = tempfile.TemporaryDirectory()
    for _ in range(rounds):
        pictures = [
            np.clip(sample_image().astype(int) + rng.integers(-20, 20, 3), 0, 255).astype(np.uint8)
            for _ in range(count)
        ]
        files = [_jpeg(picture) for picture in pictures]
        paths = [Path(temporary.name) / f"{index}.jpg" for index in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)
        start = time.perf_counter()
        for path in paths:
            predictor.set_image(read_image(path))
            masks, _, _ = predictor.predict([[245, 300]], [1], multimask_output=False)
            encode_rle(masks[0])
        seconds["loop"].append(time.perf_counter() - start)
        clients = [client(server) for _ in range(CLIENTS)]

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
    temporary.cleanup()
    loop, clients_rate = (count / statistics.median(seconds[k]) for k in seconds)
    ratios = [a / b for a, b in zip(seconds["loop"], seconds["clients"], strict=True)]
    print(
        f"images per second: loop over the predictor {loop:.3g}, {CLIENTS} clients "
        f"{clients_rate:.3g}; ratio, median of the rounds: {statistics.median(ratios):.2f}"
    )


def _beside_uploads(server: Server, blocks: int) -> None:
    """Time clicks while another client uploads pictures of 12 megapixels all the time."""
    http, other = client(server), client(server)
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
    (times,) = _in_blocks([click], blocks)
    done.set()
    worker.join()
    print(
        f"click beside uploads     median {_ms(times, 0.5)} ms, p99 {_ms(times, 0.99)} ms "
        f"({uploads} pictures of 12 megapixels meanwhile)"
    )


def _in_blocks(works: list[Callable[[], None]], blocks: int) -> list[list[float]]:
    """Run each work `CLICKS` times in its turn, `blocks` turns, and return the seconds of each."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(blocks):
        for work, mine in zip(works, times, strict=True):
            work()
            for _ in range(CLICKS):
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


def client(server: Server) -> httpx.Client:
    """Return a client that waits long enough for a model of full size."""
    return httpx.Client(base_url=server.url, timeout=600)


if __name__ == "__main__":
    main()
