"""Do one job in a process of its own: `python -m glesam_benchmark.worker JOB ANSWER`.

Each contender gets its own process, so that the peak memory belongs to it alone, and the process
imports nothing that the contender would not import without this benchmark.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from glesam_benchmark import machine, worker_jobs
from glesam_benchmark.contenders import BundleRunner, PytorchRunner, Runner
from glesam_benchmark.timing import Chain, LoadFacts, golden_inputs, time_chain
from glesam_runtime.bundle import open_bundle
from glesam_runtime.errors import GlesamError


def main() -> None:
    """Read the job, do it, and write the reply."""
    source, destination = map(Path, sys.argv[1:])
    job = worker_jobs.decode(source.read_bytes(), worker_jobs.Job)
    try:
        reply = worker_jobs.Reply(answer=msgspec.Raw(worker_jobs.encode(do(job))))
    except GlesamError as error:
        reply = worker_jobs.Reply(failure=worker_jobs.Failure(type(error).__name__, str(error)))
    destination.write_bytes(worker_jobs.encode(reply))


def do(job: worker_jobs.Job) -> worker_jobs.Answer:
    """Do one job and return its answer."""
    match job:
        case worker_jobs.Measure():
            return _measure(job)
        case worker_jobs.MeasureMachine():
            from glesam_benchmark import operations
            from glesam_export.presets import sam_preset, unet_preset

            counted = operations.count_operations(sam_preset(job.preset), unet_preset(job.unet))
            watch = machine.Watch()
            rates = operations.matrix_rates(job.threads, job.side)
            return worker_jobs.MachineRates(rates, counted, watch.others())
        case worker_jobs.ExportPlain():
            return _export(job)
        case worker_jobs.Grow():
            from glesam_benchmark.growth import measure_growth

            return measure_growth(open_bundle(job.bundle), job.choice, job.rounds)
        case worker_jobs.ProfileBundle():
            from glesam_benchmark.profile import profile_bundle

            return profile_bundle(open_bundle(job.bundle), job.choice, job.rounds)


def _measure(job: worker_jobs.Measure) -> worker_jobs.Answer:
    load_average = machine.load_average()
    bundle = open_bundle(job.bundle)
    given = golden_inputs(bundle)
    start = time.perf_counter()
    chain = _load(job.runner)
    before = LoadFacts(time.perf_counter() - start, load_average)
    run, masks = time_chain(chain, given, job.rounds, before)
    np.save(job.masks, masks)
    return run


def _load(runner: Runner) -> Chain:
    if isinstance(runner, BundleRunner):
        from glesam_benchmark import bundle_chain

        return bundle_chain.load_bundle_chain(open_bundle(runner.bundle), runner.choice)
    if isinstance(runner, PytorchRunner):
        from glesam_benchmark import pytorch_chain
        from glesam_export.weights import make_checkpoint

        return pytorch_chain.load_pytorch_chain(make_checkpoint(runner.weights), runner)
    from glesam_benchmark import plain_graphs

    return plain_graphs.load_plain_chain(runner)


def _export(job: worker_jobs.ExportPlain) -> worker_jobs.Answer:
    from glesam_benchmark.plain_export import export_plain
    from glesam_export.weights import make_checkpoint

    bundle = open_bundle(job.bundle)
    checkpoint = make_checkpoint(job.weights)
    export_plain(checkpoint, bundle, golden_inputs(bundle), Path(job.folder))
    return worker_jobs.Done()


if __name__ == "__main__":
    main()
