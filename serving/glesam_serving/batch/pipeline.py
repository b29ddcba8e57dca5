"""Run the stages of a job on Ray Data, each in a pool of its own, and yield what each chunk gave.

Ray Data schedules, retries and bounds the bytes that are between the stages. What is written once
is decided by `parts`, not by Ray (docs/adr/0024).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.errors import BackendError, BundleError, GlesamError, InputError
from glesam_runtime.everything.parameters import Parameters
from glesam_runtime.expected_work import ExpectedWork
from glesam_serving.batch import bundles, stages

if TYPE_CHECKING:
    import numpy as np

    from glesam_runtime.bundle import Bundle
    from glesam_runtime.predictor import GleSamPredictor

_CHUNKS_PER_TASK = 4
"""Chunks that one read task makes, one after another. A task that is lost is repeated whole."""
_CONNECT_SECONDS = 10
_MOST_TASKS = 20_000
"""Read tasks of a job; the driver keeps a record of each."""


@dataclass(frozen=True)
class Size:
    """What a cluster has."""

    nodes: int
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Pools:
    """How many processes work, and what each takes."""

    actors: int
    """Processes that encode, and as many that decode."""
    gpus: float
    """GPUs of an encoder and a decoder together. Ray hides all GPUs from a process that takes none,
    so a decoder takes a quarter of them."""
    memory: int | None
    """Bytes of the object store that this job may fill; None is Ray's default, half of it."""
    size: Size

    @property
    def threads(self) -> int:
        """Return the CPU threads of each engine, so that encoders and decoders share the cores."""
        actors_per_node = -(-self.actors // self.size.nodes)
        return max(1, int(self.size.cpus / self.size.nodes / actors_per_node / 2))

    @property
    def actor_cpus(self) -> float:
        """Return the CPUs that each encoder and each decoder reserves: half of the cluster's."""
        return max(0.01, min(1.0, round(self.size.cpus / 4 / self.actors, 2)))

    @property
    def task_cpus(self) -> float:
        """Return the CPUs that each read task reserves."""
        return max(0.01, min(1.0, round(self.size.cpus / 8, 2)))


@contextmanager
def cluster(address: str | None) -> Iterator[Size]:
    """Join a cluster, or start one on this machine; yield its size, and leave it.

    Args:
        address: "auto", "host:port" or "ray://host:port"; None starts a cluster of all cores and
            GPUs of this machine.

    Raises:
        InputError: no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)

    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        settings.update(include_dashboard=False, num_cpus=max(2, os.cpu_count() or 2))
    elif address != "auto":
        host = _check_answers(address)
        if ipaddress.ip_address(host).is_loopback and "://" not in address:
            # Ray would replace a loopback address by one that such a cluster does not listen on.
            settings["_node_ip_address"] = host
    try:
        ray.init(address, **settings)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        raise InputError(
            f"--address {address}: no Ray cluster answers ({_first_line(error)}); start one with "
            "'ray start --head', or leave out --address to use this machine"
        ) from error
    try:
        found = ray.cluster_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
        yield Size(nodes, found.get("CPU", 1.0), found.get("GPU", 0.0))
    finally:
        ray.shutdown()


def _check_answers(address: str) -> str:
    """Connect to a cluster's port and return the IP address; Ray alone tries for minutes.

    Raises:
        InputError: the address is malformed, or nothing listens there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port[:6]) < 1 << 16):
        raise InputError(f"--address {address}: auto, HOST:PORT or ray://HOST:PORT is needed")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as made:
            found: str = made.getpeername()[0]
            return found
    except OSError as error:
        raise InputError(
            f"--address {address}: no Ray cluster answers ({error.strerror or error}); start one "
            "with 'ray start --head', or leave out --address to use this machine"
        ) from error


def run_chunks(
    setup: stages.Setup,
    bundle: Bundle,
    chunks: np.ndarray,
    pools: Pools,
    options: EngineOptions,
) -> Iterator[dict[str, Any]]:
    """Run the stages on chunks, and yield what `stages.write` returns, in any order.

    Args:
        setup: the job.
        bundle: the bundle; nodes that do not have it get it.
        chunks: the numbers of the chunks.
        pools: the pools.
        options: how each engine is to run.

    Raises:
        GlesamError: a stage failed for another reason than an image.
    """
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1 << 20  # each chunk is a block of its own, whatever its size
    context.issue_detectors_config.detectors = []
    if pools.memory is not None:
        limits = ray.data.ExecutionResources(object_store_memory=pools.memory)
        context.execution_options.resource_limits = limits
    held = {}
    if pools.size.nodes > 1:
        held = {name: ray.put(content) for name, content in bundles.pack(bundle).items()}
    numbers = ray.put(chunks)
    shared = _Shared(setup, bundle.path.absolute(), held, options)
    tasks = min(-(-len(chunks) // _CHUNKS_PER_TASK), _MOST_TASKS)
    actors = {
        "compute": ray.data.ActorPoolStrategy(size=pools.actors, max_tasks_in_flight_per_actor=2),
        "num_cpus": pools.actor_cpus,
    }
    dataset = (
        ray.data.range(len(chunks), override_num_blocks=max(1, tasks))
        .map(
            _read,
            fn_kwargs={"setup": setup, "numbers": [numbers]},
            num_cpus=pools.task_cpus,
        )
        .map(_Encoder, fn_constructor_args=(shared,), num_gpus=pools.gpus * 3 / 4, **actors)
        .map(_Decoder, fn_constructor_args=(shared,), num_gpus=pools.gpus / 4, **actors)
        .map(_write, fn_kwargs={"setup": setup}, num_cpus=0.01)
    )
    try:
        yield from dataset.iter_rows()
    except ray.exceptions.RayError as error:
        raise _cause(error) from error


@dataclass(frozen=True)
class _Shared:
    setup: stages.Setup
    place: Path
    """The bundle's folder on the driver's node."""
    files: dict[str, Any]
    """References of the bundle's files in the object store; none if there is only one node."""
    options: EngineOptions

    def predictor(self, enhance: bool) -> GleSamPredictor:
        """Load the bundle in this process; the first process of a node fetches it."""
        import ray

        from glesam_runtime.predictor import GleSamPredictor

        bundle = bundles.find(self.setup.job.bundle, self.place)
        if bundle is None and not self.files:
            raise BundleError(f"{self.place}: changed while the job ran; start the job again")
        if bundle is None:
            names = list(self.files)
            contents = ray.get([self.files[name] for name in names])
            bundle = bundles.keep(dict(zip(names, contents, strict=True)))
        job = self.setup.job
        return GleSamPredictor(
            bundle,
            backend=job.backend,
            device=job.device,
            enhance=enhance,
            options=self.options,
            timestep=job.timestep,
            work=self.work(),
        )

    def work(self) -> ExpectedWork:
        """Return the work of the whole job, so that a run that resumes it takes the same engine.

        Processes that start together would measure each other.
        """
        images = self.setup.job.batch_size * len(self.setup.plan)
        asked = self.setup.job.everything
        whole = Parameters(**asked).work_on(images) if asked else ExpectedWork(images, images)
        return dataclasses.replace(whole, measure=False)


def _read(row: dict[str, Any], setup: stages.Setup, numbers: list[Any]) -> dict[str, Any]:
    import ray

    chunk = int(ray.get(numbers[0])[row["id"]])
    return {"chunk": stages.read(setup, chunk).packed()}


class _Encoder:
    def __init__(self, shared: _Shared) -> None:
        self._setup = shared.setup
        self._predictor = shared.predictor(shared.setup.job.enhance)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        chunk = stages.unpack(row["chunk"])
        return {"chunk": stages.encode(self._setup, self._predictor, chunk).packed()}


class _Decoder:
    def __init__(self, shared: _Shared) -> None:
        self._setup = shared.setup
        # In everything-mode the encoder's processes decode too, as each crop is an image.
        everything = shared.setup.job.everything is not None
        self._predictor = None if everything else shared.predictor(shared.setup.job.enhance)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        chunk = stages.unpack(row["chunk"])
        if self._predictor is not None:
            chunk = stages.decode(self._setup, self._predictor, chunk)
        return {"chunk": chunk.packed()}


def _write(row: dict[str, Any], setup: stages.Setup) -> dict[str, Any]:
    return stages.write(setup, stages.unpack(row["chunk"]))


def _cause(error: BaseException) -> GlesamError:
    """Return the error of this project inside an error of Ray, or a description of Ray's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, GlesamError):
            return seen
        inner = getattr(seen, "cause", None)
        seen = inner if isinstance(inner, BaseException) else seen.__cause__
    return BackendError(
        f"Ray: {_first_line(error)}; start the same command again, which resumes the job"
    )


def _first_line(error: BaseException) -> str:
    """Return the last line of an error that says something; Ray's end with what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
