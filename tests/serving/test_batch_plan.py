"""What of glesam-batch needs no Ray: the rows of a job, its plan, its record, and the blame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.expected_work import ExpectedWork
from glesam_serving.batch.job import Job, open_job, read_job, work_of
from glesam_serving.batch.plan import Plan, parse_shard, pending, write_plan
from glesam_serving.batch.rows import Row, read_rows
from glesam_serving.batch.started import Started

JOB = Job(
    inputs=("rows.jsonl",),
    recursive=False,
    root=None,
    bundle="0" * 64,
    backend="auto",
    device=None,
    precision=None,
    enhance=True,
    multimask=False,
    depth="auto",
    prompts=({"points": [], "box": [1.0, 2.0, 3.0, 4.0]},),
    everything=None,
    masks="rle",
    batch_size=2,
    limit=None,
)


def rows(count: int) -> Iterator[Row]:
    return (Row(f"{index}.png", f"/data/{index}.png") for index in range(count))


def test_lists_tables_and_coco_files_give_their_rows(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\n\nsub/b.png\ns3://bucket/c.png\n")
    (tmp_path / "rows.jsonl").write_text(
        '{"image": "d.png", "boxes": [[1, 2, 3, 4]]}\n{"image": "e.png", "prompts": null}\n'
    )
    coco = {
        "images": [{"id": 7, "file_name": "f.png"}, {"id": 8, "file_name": "unused.png"}],
        "annotations": [{"id": 70, "image_id": 7, "bbox": [10, 20, 5, 6]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    names = [str(tmp_path / name) for name in ("list.txt", "rows.jsonl", "coco.json")]
    found = list(read_rows(names, False, None))
    assert [row.image for row in found] == [
        *("a.png", "sub/b.png", "s3://bucket/c.png", "d.png", "e.png", "f.png"),
    ]
    assert found[1].place == str(tmp_path / "sub/b.png")
    assert found[2].place == "s3://bucket/c.png"
    assert json.loads(bytes(found[3].prompts[0])) == {"box": [1, 2, 3, 4]}
    assert found[4].prompts == ()
    assert json.loads(bytes(found[5].prompts[0])) == {"box": [10, 20, 15, 26]}
    assert (found[5].image_id, found[5].annotations) == (7, (70,))
    (rooted,) = read_rows(names[2:], False, Path("/elsewhere"))
    assert rooted.place == "/elsewhere/f.png"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "[1]\n", "a.jsonl: line 1: not a JSON object"),
        ("a.jsonl", '{"image": "a"}\n{"boxes": []}\n', "line 2: image is missing"),
        ("a.jsonl", '{"image": "a", "prompts": []}\n', "an empty list of prompts"),
        ("a.jsonl", '{"image": "a", "prompts": [{"points": []}]}\n', "neither points nor a box"),
        ("a.jsonl", '{"image": "a", "boxes": [[4, 2, 3, 4]]}\n', "x1 must exceed x0"),
        ("a.jsonl", '{"image": "a", "boxes": [], "prompts": []}\n', "has prompts and boxes"),
        ("a.json", '{"images": []}', "a.json: not a COCO file"),
    ],
)
def test_wrong_tables_name_the_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        list(read_rows([str(tmp_path / name)], False, None))


def test_a_plan_gives_any_chunk_back(tmp_path: Path) -> None:
    assert write_plan(tmp_path, rows(7), 3, None) == 7
    plan = Plan(tmp_path)
    assert len(plan) == 3
    assert [row.image for row in plan.read(1)] == ["3.png", "4.png", "5.png"]
    assert [row.image for row in plan.read(2)] == ["6.png"]
    assert list(plan.rows()) == list(rows(7))


def test_a_plan_reads_no_more_rows_than_the_limit(tmp_path: Path) -> None:
    def endless() -> Iterator[Row]:
        yield from rows(5)
        raise AssertionError("a row behind the limit was read")

    assert write_plan(tmp_path, endless(), 2, 5) == 5


def test_shards_divide_the_chunks_and_leave_out_what_is_written() -> None:
    assert pending(7, [0, 3], (1, 1)).tolist() == [1, 2, 4, 5, 6]
    parts = [pending(7, [], (k, 3)).tolist() for k in (1, 2, 3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]
    assert sorted(np.concatenate(parts)) == list(range(7))
    assert parse_shard("2/8") == (2, 8)
    for text in ("0/2", "3/2", "2", "a/b", "1/0"):
        with pytest.raises(InputError, match="k/n is needed"):
            parse_shard(text)


def _planned() -> None:
    """Let a planned job be kept."""


def test_a_job_is_planned_once_and_another_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = open_job(out, JOB, rows(5), _planned)
    assert (first.count, len(first.plan), first.resumed) == (5, 3, False)
    # The input has grown since: the plan stays.
    again = open_job(out, JOB, rows(50), _planned)
    assert (again.count, len(again.plan), again.resumed) == (5, 3, True)
    for name, value in (("bundle", "1" * 64), ("multimask", True), ("batch_size", 3)):
        other = msgspec.structs.replace(JOB, **{name: value})
        with pytest.raises(InputError, match=f"holds another job, whose {name} is"):
            open_job(out, other, rows(5), _planned)
    assert read_job(out).job == JOB
    (out / "plan" / "offsets.u64").write_bytes(bytes(16))
    with pytest.raises(InputError, match="altered or missing"):
        read_job(out)


def test_what_cannot_be_planned_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="names no images"):
        open_job(out, JOB, rows(0), _planned)
    with pytest.raises(InputError, match=r"0\.png: has no prompt"):
        open_job(out, msgspec.structs.replace(JOB, prompts=()), rows(3), _planned)
    prompted = Row("a.png", "/a.png", (msgspec.Raw(b'{"box": [0, 0, 1, 1]}'),))
    with pytest.raises(InputError, match=r"a\.png: has prompts, but --everything takes none"):
        open_job(out, msgspec.structs.replace(JOB, prompts=(), everything={}), [prompted], _planned)
    assert not out.exists()
    out.mkdir()
    (out / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds letter\.txt and no job"):
        open_job(out, JOB, rows(3), _planned)
    assert [path.name for path in out.iterdir()] == ["letter.txt"]


def test_a_plan_that_was_killed_is_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "plan").mkdir(parents=True)
    (out / "plan" / "chunks.jsonl").write_text("half")
    assert open_job(out, JOB, rows(5), _planned).count == 5


def test_an_image_that_ends_its_process_is_blamed_and_its_neighbours_are_not(
    tmp_path: Path,
) -> None:
    """Row 1 ends each process that works on it; a machine is also stopped while row 2 works."""

    class KilledError(BaseException):
        pass

    stopped = iter([True, True, False])

    def work(row: int) -> str:
        if row == 1 or (row == 2 and next(stopped)):
            raise KilledError
        return "done"

    processes, results = 0, {}
    while True:
        processes += 1
        started, results = Started(tmp_path, "read", 0), {}
        try:
            for row in range(3):
                results[row] = started.run(row, lambda row=row: work(row), lambda reason: reason)
        except KilledError:
            continue
        started.done()
        break
    assert results[0] == results[2] == "done"
    assert results[1].startswith("ended its process 4 times")
    assert processes == 4 + 2 + 1
    assert not list(tmp_path.rglob("*.read"))


@pytest.mark.parametrize("everything", [None, {}])
def test_an_engine_is_chosen_for_the_whole_job(
    everything: dict[str, int] | None, tmp_path: Path
) -> None:
    """Neither what is left to do nor a measurement counts: resumed jobs give the same rows."""
    job = msgspec.structs.replace(JOB, everything=everything)
    (tmp_path / "plan").mkdir()
    write_plan(tmp_path / "plan", rows(40), job.batch_size, None)
    points = 40 if everything is None else 40 * 32**2
    assert work_of(job, Plan(tmp_path / "plan")) == ExpectedWork(40, points, measure=False)


def test_a_job_whose_cluster_cannot_be_reached_leaves_nothing(tmp_path: Path) -> None:
    def unreachable() -> None:
        raise BackendError("no cluster there")

    out = tmp_path / "out"
    with pytest.raises(BackendError):
        open_job(out, JOB, rows(5), unreachable)
    assert not out.exists() or not list(out.iterdir())
