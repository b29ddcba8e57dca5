"""One job in a process of its own: `python -m glesam_benchmark.worker JOB ANSWER`.

Each contender has a process to itself, so that its peak of memory is its own, and imports nothing
that it would not have without this benchmark.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from glesam_benchmark import jobs, machine
from glesam_benchmark.chain import Before, Chain, measure
from glesam_benchmark.contenders import Ours, Pytorch, Runner
from glesam_benchmark.inputs import golden_inputs
from glesam_runtime.bundle import open_bundle
from glesam_runtime.errors import GlesamError


def main() -> None:
    """Read the job, do it, write what came of it."""
    source, destination = map(Path, sys.argv[1:])
    job = jobs.decode(source.read_bytes(), jobs.Job)
    try:
        reply = jobs.Reply(answer=msgspec.Raw(jobs.encode(do(job))))
    except GlesamError as error:
        reply = jobs.Reply(failure=jobs.Failure(type(error).__name__, str(error)))
    destination.write_bytes(jobs.encode(reply))


def do(job: jobs.Job) -> jobs.Answer:
    """Do one job."""
    match job:
        case jobs.Measure():
            return _measure(job)
        case jobs.MeasureMachine():
            from glesam_benchmark import flops, rate
            from glesam_export.presets import sam_preset, unet_preset

            counted = flops.count(sam_preset(job.preset), unet_preset(job.unet))
            watch = machine.Watch()
            rates = rate.matrix_rates(job.threads, job.side)
            return jobs.Machine(rates, counted, watch.others())
        case jobs.ExportPlain():
            return _export(job)
        case jobs.Grow():
            from glesam_benchmark.growth import grow

            return grow(open_bundle(job.bundle), job.choice, job.rounds)
        case jobs.ProfileBundle():
            from glesam_benchmark.profile import profile

            return profile(open_bundle(job.bundle), job.choice, job.rounds)


def _measure(job: jobs.Measure) -> jobs.Answer:
    load_average = machine.load_average()
    bundle = open_bundle(job.bundle)
    given = golden_inputs(bundle)
    start = time.perf_counter()
    chain = _load(job.runner)
    before = Before(time.perf_counter() - start, load_average)
    run, masks = measure(chain, given, job.rounds, before)
    np.save(job.masks, masks)
    return run


def _load(runner: Runner) -> Chain:
    if isinstance(runner, Ours):
        from glesam_benchmark import ours

        return ours.load(open_bundle(runner.bundle), runner.choice)
    if isinstance(runner, Pytorch):
        from glesam_benchmark import pytorch
        from glesam_export.weights import make_checkpoint

        return pytorch.load(make_checkpoint(runner.weights), runner)
    from glesam_benchmark import plain_chain

    return plain_chain.load(runner)


def _export(job: jobs.ExportPlain) -> jobs.Answer:
    from glesam_benchmark.plain import export_plain
    from glesam_export.weights import make_checkpoint

    bundle = open_bundle(job.bundle)
    checkpoint = make_checkpoint(job.weights)
    export_plain(checkpoint, bundle, golden_inputs(bundle), Path(job.folder))
    return jobs.Done()


if __name__ == "__main__":
    main()
