"""A chunk is written once, by whoever is first, and failed/ follows the chunk's metadata."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")

from glesam_runtime.errors import InputError  # noqa: E402
from glesam_serving.batch import parts  # noqa: E402
from glesam_serving.batch.parts import Failure  # noqa: E402

from .conftest import failed_of, masks_of  # noqa: E402


def row(number: int, counts: str = "0") -> dict[str, Any]:
    return {
        "row": number,
        "image": f"{number}.png",
        "mask": 0,
        "predicted_iou": 0.5,
        "stability_score": 0.5,
        "area": 1,
        "box": [0, 0, 1, 1],
        "height": 1,
        "width": 1,
        "counts": counts,
        "enhanced": True,
        "bundle": "b",
        "seconds": 0.1,
    }


def test_the_first_writer_wins_and_the_other_repeats_its_failures(tmp_path: Path) -> None:
    assert parts.commit(tmp_path, 3, [row(0)], [Failure(1, "1.png", "gone")])
    # Another worker could read the image that failed; its rows come too late.
    assert not parts.commit(tmp_path, 3, [row(0), row(1)], [])
    assert [each["row"] for each in masks_of(tmp_path)] == [0]
    assert [each["error"] for each in failed_of(tmp_path)] == ["gone"]
    assert list(parts.written_chunks(tmp_path)) == [3]


def test_many_writers_of_one_chunk_leave_one_file(tmp_path: Path) -> None:
    results: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda n=n: results.append(parts.commit(tmp_path, 0, [row(0, str(n))], []))
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]
    assert len(masks_of(tmp_path)) == 1
    assert not list(tmp_path.glob("*/*/.part-*"))


def test_failed_is_repaired_from_the_parts(tmp_path: Path) -> None:
    parts.commit(tmp_path, 0, [row(0)], [Failure(1, "1.png", "gone")])
    parts.commit(tmp_path, 1, [row(2)], [])
    wrong = parts.part_path(tmp_path, parts.FAILED, 1)
    parts.part_path(tmp_path, parts.FAILED, 0).rename(wrong)
    parts.repair_failed(tmp_path)
    assert not wrong.exists()
    assert [each["image"] for each in failed_of(tmp_path)] == ["1.png"]


def test_a_full_disk_is_one_line_and_leaves_no_part(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")

    def write(*_: Any, **__: Any) -> None:
        with full.open("wb") as file:
            file.write(b"x")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.parquet, "write_table", write)
        with pytest.raises(InputError, match="no space left; free some and start the same"):
            parts.commit(tmp_path, 0, [row(0)], [])
    assert list(parts.written_chunks(tmp_path)) == []
    assert not list(tmp_path.glob("*/*/.part-*"))
    assert parts.commit(tmp_path, 0, [row(0)], [])


def test_a_foreign_file_system_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("a file")
    with pytest.raises(InputError, match=r"part-000000000\.parquet"):
        parts.commit(tmp_path, 0, [row(0)], [])
