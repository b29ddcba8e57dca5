"""Measure how glesam-batch scales with its actors, and whether its memory grows with the rows.

Usage: python -m tests.studies.scale [actors [SECONDS [N ...]] | memory [ROWS]]

The engine sleeps (`sleeping_backend`), so two cores can drive many actors, and the rest is the
product's own pipeline on a local Ray cluster. `actors` runs N actors (default 1, 2, 4, 8 and 16)
whose encoder takes SECONDS (default 2) for an image. `memory` runs ROWS (default 100,000) tiny
images through an engine that takes no time, and prints the memory of the driver and of the object
store on the way.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from PIL import Image
from tests.studies import sleeping_backend

from glesam_runtime.bundle import open_bundle
from glesam_runtime.engine_options import EngineOptions
from glesam_serving.batch import stages
from glesam_serving.batch.cluster import Size
from glesam_serving.batch.job import Job, open_job
from glesam_serving.batch.pipeline import Pools, run_chunks
from glesam_serving.batch.rows import read_rows

ACTORS = (1, 2, 4, 8, 16)
CPUS = 64
"""Cores that Ray believes in; the actors sleep."""
SIDE = 64
"""Side of the encoder's input."""
CHUNKS_PER_ACTOR, PER_CHUNK = 20, 2


@contextmanager
def cluster(seconds: float) -> Iterator[None]:
    """Start a cluster whose workers have the sleeping backend."""
    os.environ[sleeping_backend.SECONDS] = str(seconds)
    os.environ["PYTHONPATH"] = str(Path.cwd())
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sleeping_backend.register()
    ray.init(
        "local",
        num_cpus=CPUS,
        include_dashboard=False,
        object_store_memory=512 << 20,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": "tests.studies.sleeping_backend.register"},
        _system_config={"num_workers_soft_limit": 4},
    )
    try:
        yield
    finally:
        ray.shutdown()


def run(
    folder: Path, name: str, rows: int, per_chunk: int, actors: int, seen: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Run a job of the product, and return what its chunks gave."""
    bundle = open_bundle(folder / "bundle")
    job = Job(
        inputs=(name,),
        recursive=False,
        root=None,
        bundle=bundle.sha256,
        backend=sleeping_backend.NAME,
        device="cpu",
        precision=None,
        enhance=True,
        multimask=False,
        depth="auto",
        prompts=({"box": [3, 4, 30, 40]},),
        everything=None,
        masks="rle",
        batch_size=per_chunk,
        limit=rows,
    )
    opened = open_job(folder / name, job, read_rows([str(folder / "rows.txt")], False, None), list)
    setup = stages.Setup(opened.out, opened.job, opened.plan, bundle.manifest)
    pools = Pools(actors, 0.0, None, Size(1, CPUS, 0.0))
    chunks = np.arange(len(opened.plan))
    found = []
    for chunk in run_chunks(setup, bundle, chunks, pools, EngineOptions(threads=1)):
        found.append({"seconds": chunk["seconds"], "encoded_at": chunk["encoded_at"]})
        seen(len(found) * per_chunk)
    return found


def measure_actors(folder: Path, seconds: float, numbers: Sequence[int]) -> None:
    """Print images a second over the number of actors, while all of them are up."""
    print(f"an encoder of {seconds} s an image, {os.cpu_count()} cores")
    print(f"{'actors':>6} {'images':>7} {'window':>7} {'ideal':>8} {'images/s':>9} {'share':>6}")
    for actors in numbers:
        rows = actors * CHUNKS_PER_ACTOR * PER_CHUNK
        with cluster(seconds):
            found = run(folder, f"actors-{actors}", rows, PER_CHUNK, actors, lambda _: None)
        length, rate = steady(found, actors)
        ideal = actors / seconds
        print(
            f"{actors:>6} {rows:>7} {length:>6.0f}s {ideal:>8.2f} {rate:>9.2f} "
            f"{rate / ideal:>6.2f}",
            flush=True,
        )


def steady(chunks: Sequence[dict[str, Any]], actors: int) -> tuple[float, float]:
    """Return the seconds in which all actors are up and have work, and images a second in them.

    Actors start one after another on two cores, and the last chunks leave some without work. So the
    window opens when as many chunks as actors are encoded at the same time, and closes when the
    last chunk starts.
    """
    starts = sorted(chunk["encoded_at"] for chunk in chunks)
    ends = sorted(chunk["encoded_at"] + encode_seconds(chunk) for chunk in chunks)
    opens = next(
        at
        for index, at in enumerate(starts)
        if index + 1 - sum(end <= at for end in ends) >= actors
    )
    closes = starts[-1]
    images = 0.0
    for chunk in chunks:
        start, length = chunk["encoded_at"], encode_seconds(chunk)
        shared = min(start + length, closes) - max(start, opens)
        images += PER_CHUNK * max(0.0, shared) / length
    return closes - opens, images / (closes - opens)


def encode_seconds(chunk: dict[str, Any]) -> float:
    """Return the seconds that a chunk spent in an encoder."""
    return float(json.loads(chunk["seconds"])["encode"])


def measure_memory(folder: Path, rows: int) -> None:
    """Print the driver's memory and the object store's content at each tenth of the rows."""
    print(f"{rows} rows, 2 actors, an engine that takes no time")
    print(f"{'rows':>8} {'driver MiB':>11} {'object store MiB':>17} {'rows/s':>8}")
    driver, step = psutil.Process(), max(1, rows // 10)
    start, shown = time.monotonic(), 0

    def seen(done: int) -> None:
        nonlocal shown
        if done // step > shown:
            shown = done // step
            rate = done / (time.monotonic() - start)
            used = driver.memory_info().rss / (1 << 20)
            print(f"{done:>8} {used:>11.0f} {stored():>17.1f} {rate:>8.0f}", flush=True)

    with cluster(0.0):
        run(folder, "memory", rows, 100, 2, seen)


def stored() -> float:
    """Return the MiB of the object store's pages that were ever used; Ray uses freed ones again."""
    for process in psutil.Process().children():
        if process.name() == "raylet":
            return float(process.memory_info().shared) / (1 << 20)
    return 0.0


def main() -> None:
    """Measure what the first argument names, or both."""
    what = sys.argv[1] if len(sys.argv) > 1 else "both"
    amount = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "picture.png")
        count = 100_000 if what != "memory" or amount is None else int(amount)
        (folder / "rows.txt").write_text("picture.png\n" * count)
        sleeping_backend.write_bundle(folder / "bundle", SIDE)
        if what in ("actors", "both"):
            measure_actors(folder, float(amount or 2), [int(n) for n in sys.argv[3:]] or ACTORS)
        if what in ("memory", "both"):
            measure_memory(folder, count)


if __name__ == "__main__":
    main()
