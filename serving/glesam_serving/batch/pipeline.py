"""Run the stages of a job on Ray Data, each in a pool of its own, and yield what each chunk gave.

Ray Data schedules, retries and bounds the bytes that are between the stages. What is written once
is decided by `parts`, not by Ray (docs/adr/0024).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.engine_selection import is_small
from glesam_runtime.errors import BackendError, BundleError, GlesamError
from glesam_serving.batch import bundles, stages
from glesam_serving.batch.cluster import Size, last_line
from glesam_serving.batch.job import work_of

if TYPE_CHECKING:
    import numpy as np

    from glesam_runtime.bundle import Bundle
    from glesam_runtime.predictor import GleSamPredictor

_MOST_CHUNKS = 100_000
"""Chunks of one execution. Ray Data keeps some 20 kB of each chunk in the driver until the
execution ends (docs/scale.md). Between two executions the actors start anew."""

_READ_CPUS, _WRITE_CPUS = 0.02, 0.01
"""CPUs that a task reserves: little, so that it starts beside actors that nearly fill every node,
as after the loss of one. They differ from what actors reserve, because Ray Data runs stages of
equal resources in one process, and then encoders would wait for files."""


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

    def options(self, asked: EngineOptions, stage: str, small: bool) -> EngineOptions:
        """Return how the engines of a stage run.

        Args:
            asked: what the command says; it is followed.
            stage: "encode" or "decode".
            small: whether the bundle is so small that a core computes an image by itself. Then each
                core has an image of its own, and else all cores of an actor share one.
        """
        if self.gpus or asked.threads is not None or asked.streams > 1:
            return asked
        actors_per_node = -(-self.actors // self.size.nodes)
        cores = max(1, int(self.size.cpus / self.size.nodes / actors_per_node))
        if small:
            return replace(asked, threads=cores, streams=cores)
        # A large decoder has little to do beside its encoder.
        return replace(asked, threads=cores if stage == "encode" else -(-cores // 4))

    @property
    def actor_cpus(self) -> float:
        """Return the CPUs that each encoder and each decoder reserves: half of the cluster's."""
        return max(0.03, min(1.0, round(self.size.cpus / 4 / self.actors, 2)))

    @property
    def readers(self) -> int:
        """Return the number of read tasks that run at the same time."""
        return max(4, int(self.size.cpus / 2))


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
    for first in range(0, len(chunks), _MOST_CHUNKS):
        yield from _execute(setup, bundle, chunks[first : first + _MOST_CHUNKS], pools, options)


def _execute(
    setup: stages.Setup,
    bundle: Bundle,
    chunks: np.ndarray,
    pools: Pools,
    options: EngineOptions,
) -> Iterator[dict[str, Any]]:
    """Run the stages on chunks in one execution of Ray Data."""
    import ray

    from glesam_serving.batch.source import ChunkSource

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1 << 20  # each chunk is a block of its own, whatever its size
    context.issue_detectors_config.detectors = []
    # Ray's own error does not carry the one that caused it from a worker to the driver.
    context.raise_original_map_exception = True
    if pools.memory is not None:
        limits = ray.data.ExecutionResources(object_store_memory=pools.memory)
        context.execution_options.resource_limits = limits
    held = {}
    if pools.size.nodes > 1:
        held = {name: ray.put(content) for name, content in bundles.pack(bundle).items()}
    small = is_small(bundle)
    encoding, decoding = (
        _Shared(setup, bundle.path.absolute(), held, pools.options(options, stage, small))
        for stage in ("encode", "decode")
    )
    actors = {
        "compute": ray.data.ActorPoolStrategy(size=pools.actors, max_tasks_in_flight_per_actor=2),
        "num_cpus": pools.actor_cpus,
    }
    tasks = ChunkSource.tasks(len(chunks))
    dataset = (
        ray.data.read_datasource(
            ChunkSource(setup, chunks),
            num_cpus=_READ_CPUS,
            concurrency=min(pools.readers, tasks),  # Ray warns about more than there are tasks
            override_num_blocks=tasks,
        )
        .map(_Encoder, fn_constructor_args=(encoding,), num_gpus=pools.gpus * 3 / 4, **actors)
        .map(_Decoder, fn_constructor_args=(decoding,), num_gpus=pools.gpus / 4, **actors)
        .map(_write, fn_kwargs={"setup": setup}, num_cpus=_WRITE_CPUS)
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

    def predictors(self) -> list[GleSamPredictor]:
        """Load the bundle in this process, and return a predictor for each stream.

        The first process of a node fetches the bundle.
        """
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
        first = GleSamPredictor(
            bundle,
            backend=job.backend,
            device=job.device,
            enhance=job.enhance,
            options=self.options,
            timestep=job.timestep,
            work=work_of(job, self.setup.plan),
        )
        return [first, *(first.share() for _ in range(self.options.streams - 1))]


class _Encoder:
    def __init__(self, shared: _Shared) -> None:
        self._setup = shared.setup
        self._predictors = shared.predictors()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        chunk = stages.unpack(row["chunk"])
        return {"chunk": stages.encode(self._setup, self._predictors, chunk).packed()}


class _Decoder:
    def __init__(self, shared: _Shared) -> None:
        self._setup = shared.setup
        # In everything-mode the encoder's processes decode too, as each crop is an image.
        everything = shared.setup.job.everything is not None
        self._predictors = [] if everything else shared.predictors()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        chunk = stages.unpack(row["chunk"])
        if self._predictors:
            chunk = stages.decode(self._setup, self._predictors, chunk)
        return {"chunk": chunk.packed()}


def _write(row: dict[str, Any], setup: stages.Setup) -> dict[str, Any]:
    return stages.write(setup, stages.unpack(row["chunk"]))


def _cause(error: BaseException) -> GlesamError:
    """Return the error of this project inside an error of Ray, or a description of Ray's."""
    seen: BaseException | None = error
    while seen is not None:
        # Ray's error of a task is of the type of its cause too, so the cause is looked at first.
        inner = getattr(seen, "cause", None)
        if isinstance(inner, BaseException):
            seen = inner
        elif isinstance(seen, GlesamError):
            return type(seen)(str(seen).partition("\n")[0])  # Ray appends lines about its retries
        else:
            seen = seen.__cause__
    return BackendError(
        f"Ray: {last_line(error)}; start the same command again, which resumes the job"
    )
