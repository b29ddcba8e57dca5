"""Implement glesam-batch: segment many images on a Ray cluster, and convert the results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from glesam_runtime.common_options import WithDefault, make_app
from glesam_runtime.console import run_app
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import InputError
from glesam_runtime.everything.parameters import EverythingOptions
from glesam_runtime.option_groups import expand_groups
from glesam_runtime.run_options import EnhanceOptions, ImageOptions, PromptOptions
from glesam_runtime.terminal_text import print_line
from glesam_runtime.verbosity import print_note
from glesam_serving.batch.options import BatchOptions

# Everything else is imported where it is used: `--help` and a wrong option need not wait for Ray.
if TYPE_CHECKING:
    from glesam_runtime.everything.parameters import Parameters


class _Commands(WithDefault):
    """Make `glesam-batch IMAGES ...` mean `glesam-batch run IMAGES ...`."""

    default = "run"


app = make_app(
    "Segment many images on a Ray cluster.", commands=True, group=_Commands, no_args_is_help=True
)


def main() -> NoReturn:
    """Run the glesam-batch command."""
    run_app(app, "glesam-batch")


@app.command("run")
@expand_groups
def run(
    source: ImageOptions,
    asked: PromptOptions,
    batch: BatchOptions,
    engine: RequestedEngine,
    search: EverythingOptions,
    enhancing: EnhanceOptions,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the job, which all nodes see."
        ),
    ],
    bundle: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Bundle folder, or its address such as s3://BUCKET/DIR. Default: the built-in "
            "nano.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Segment IMAGES, and write Parquet files of one row per mask to OUT/masks.

    IMAGES are files, folders, patterns, addresses (s3://, gs://, https://),
    .txt lists, .jsonl and .parquet tables of image and prompts or boxes, and
    COCO or LVIS .json files, whose boxes become prompts.

    Images that fail are listed in OUT/failed. The same command resumes a job
    that was interrupted. The exit code is 2 if any image failed.
    """
    engine.check_backend()
    enhance = enhancing.mode()
    parameters = search.parameters()
    _check(asked, parameters, search.mask_files, search.prompt_batch or asked.prompt_batch)
    from glesam_serving.batch.plan import parse_shard

    shard = parse_shard(batch.shard)
    if not source.images:
        raise InputError("no image: name at least one file, folder or table (--help shows more)")
    from glesam_serving.batch import bundles

    opened = bundles.open_any(bundle)
    if bundle is None:
        print_note("using the built-in nano bundle; --bundle runs another")
    from glesam_runtime.enhancing import Enhancing
    from glesam_runtime.timestep_levels import asked_timestep
    from glesam_serving.batch.job import Job, open_job
    from glesam_serving.batch.rows import read_rows

    out = output.absolute()
    how = Enhancing.of(opened, enhance)
    asked_job = Job(
        inputs=tuple(source.images),
        recursive=source.recursive,
        root=None if batch.root is None else str(batch.root),
        bundle=opened.sha256,
        backend=engine.backend,
        device=engine.device,
        precision=engine.precision,
        enhance=how.mode,
        multimask=asked.multimask,
        depth=source.depth.value,
        prompts=tuple(_own_prompts(asked)),
        everything=None if parameters is None else dataclasses.asdict(parameters),
        masks=batch.masks.value,
        batch_size=batch.batch_size,
        limit=batch.limit,
        timestep=asked_timestep(opened.manifest, enhancing.timestep, how.may_enhance),
    )
    import ray  # noqa: F401 - reports that the extra is missing before a folder is made

    from glesam_serving.batch import parts
    from glesam_serving.batch.cluster import Connection

    rows = read_rows(source.images, source.recursive, batch.root)
    with Connection(batch.address) as connection:
        job = open_job(out, asked_job, rows, connection.size)
        summary = _run(job, opened, connection, batch, engine, shard)
    if shard == (1, 1):
        parts.clear_hidden(out)
    parts.repair_failed(out)
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        from glesam_serving.batch.summary import print_summary

        print_summary(summary)
    if summary["failed"]:
        raise typer.Exit(InputError.exit_code)


def _run(
    job: Any,
    opened: Any,
    connection: Any,
    batch: BatchOptions,
    engine: RequestedEngine,
    shard: tuple[int, int],
) -> dict[str, Any]:
    """Run the chunks that are not written yet, and return the summary."""
    from glesam_serving.batch import parts, pipeline, stages
    from glesam_serving.batch.plan import pending
    from glesam_serving.batch.summary import Summary

    chunks = pending(len(job.plan), parts.written_chunks(job.out), shard)
    setup = stages.Setup(job.out, job.job, job.plan, opened.manifest)
    k, n = shard
    mine = len(range(k - 1, len(job.plan), n))
    todo = _images_of(chunks, job)
    every = _images_of(range(k - 1, len(job.plan), n), job)
    if job.resumed and mine:
        print_note(f"resuming {job.out}: {mine - len(chunks)} of {mine} parts are written")
    if not len(chunks):
        return Summary(0, every, 1).finish()
    size = connection.size()
    on_gpu = size.gpus >= 1 and engine.device != "cpu"
    actors = batch.actors or (int(size.gpus) if on_gpu else size.nodes)
    per_actor = batch.gpus_per_actor
    if per_actor is None:
        per_actor = 1.0 if on_gpu else 0.0
    pools = pipeline.Pools(actors, per_actor, batch.gib(), size)
    summary = Summary(todo, every - todo, actors)
    for chunk in pipeline.run_chunks(setup, opened, chunks, pools, engine.options()):
        summary.add(chunk)
    return summary.finish()


def _images_of(chunks: Any, job: Any) -> int:
    """Return the number of images in chunks; the last chunk of a job may be short."""
    size, last = job.job.batch_size, len(job.plan) - 1
    short = size * len(job.plan) - job.count
    missing = short if len(chunks) and int(chunks[-1]) == last else 0
    return int(len(chunks) * size - missing)


def _own_prompts(asked: PromptOptions) -> list[dict[str, Any]]:
    """Return the prompts of the command line, which apply to images that have none."""
    from glesam_runtime import prompt_requests

    requests = prompt_requests.from_options(asked.points or [], asked.box or [])
    if asked.prompts is not None:
        requests += prompt_requests.from_file(asked.prompts)
    prompt_requests.check_without_image(requests)
    return [
        {
            "points": [list(point) for point in request.points],
            **({"labels": list(request.labels)} if request.points else {}),
            **({"box": list(request.box)} if request.box else {}),
        }
        for request in requests
    ]


def _check(
    asked: PromptOptions, parameters: Parameters | None, mask_files: bool, prompt_batch: int | None
) -> None:
    """Refuse options that do not go together."""
    if parameters and (asked.given or asked.multimask):
        raise InputError(
            "--everything takes no --points, --box, --prompts or --multimask; leave them out, or "
            "leave out --everything"
        )
    if mask_files:
        raise InputError("--mask-files: use --masks png instead")
    if prompt_batch:
        raise InputError("--prompt-batch and --points-per-batch do not apply here; leave them out")


@app.command("to-coco")
def to_coco(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a finished job.")],
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="JSON file to write.")],
    category: Annotated[int, typer.Option(metavar="N", help="The category_id of all masks.")] = 1,
) -> None:
    """Write the masks of the job in OUT as COCO results, which pycocotools loads."""
    from glesam_serving.batch.to_coco import write_coco

    count = write_coco(out.absolute(), result, category)
    print_line(f"{result}  {count} masks")
