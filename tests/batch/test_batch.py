"""A local cluster gives what glesam-run gives, and one wrong image costs one image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import batch, failed_of, glesam_run, masks_of

pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")


def test_every_rle_is_that_of_glesam_run(pictures: Path, undisturbed: Path) -> None:
    expected = glesam_run(pictures, range(48))
    rows = masks_of(undisturbed)
    assert len(rows) == sum(map(len, expected.values()))
    for row in rows:
        mask = expected[row["row"]][row["mask"]]
        assert row["counts"] == mask["rle"]["counts"]
        assert [row["height"], row["width"]] == mask["rle"]["size"]
        assert row["box"] == mask["box"]
        assert row["area"] == mask["area"]
        assert row["predicted_iou"] == mask["predicted_iou"]
        assert row["stability_score"] == mask["stability_score"]
        assert row["image"] == f"p{row['row']:05}.png"


def test_a_finished_job_starts_no_cluster(pictures: Path, undisturbed: Path) -> None:
    done = batch(pictures, "-o", undisturbed, "--batch-size", "2", "--address", "127.0.0.1:1")
    assert "24 of 24 parts are written" in done.stderr


def test_the_environment_has_no_torch() -> None:
    code = (
        "import sys, glesam_serving.batch.pipeline, glesam_serving.batch.cli, ray.data\n"
        "assert 'torch' not in sys.modules\n"
        "import importlib.util\n"
        "assert importlib.util.find_spec('torch') is None"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wrong_images_stand_in_failed_and_coco_boxes_come_back(
    pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """A COCO file: its boxes prompt, its ids come back, and the wrong images are lost alone."""
    rows = [json.loads(line) for line in pictures.read_text().splitlines()][:6]
    folder = pictures.parent
    (folder / "broken.png").write_bytes((folder / "p00000.png").read_bytes()[:200])
    names = [*(row["image"] for row in rows), "broken.png", "missing.png"]
    boxes = [*(row["boxes"] for row in rows), [[1, 1, 9, 9]], [[1, 1, 9, 9]]]
    coco = {
        "images": [{"id": 900 + i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": 10 * i + j, "image_id": 900 + i, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for i, own in enumerate(boxes)
            for j, (x0, y0, x1, y1) in enumerate(own)
        ],
    }
    path, out = tmp_path / "coco.json", tmp_path / "out"
    path.write_text(json.dumps(coco))
    done = batch(path, "-o", out, "--root", folder, "--batch-size", "4", code=2)
    assert "failed: 1 x no such file, or no regular one" in done.stdout
    failed = failed_of(out)
    assert [row["image"] for row in failed] == ["broken.png", "missing.png"]
    assert failed[0]["error"].startswith("broken.png: cannot be read as an image")
    assert failed[1]["error"] == "missing.png: no such file, or no regular one"
    found = masks_of(out)
    same = [row for row in masks_of(undisturbed) if row["row"] < 6]
    assert [row["counts"] for row in found] == [row["counts"] for row in same]
    assert [row["annotation_id"] // 10 for row in found] == [row["row"] for row in same]
    from pycocotools import mask as coco_mask

    batch("to-coco", out, tmp_path / "result.json")
    results = json.loads((tmp_path / "result.json").read_text())
    assert [one["annotation_id"] for one in results] == [row["annotation_id"] for row in found]
    for one, row in zip(results, found, strict=True):
        assert int(coco_mask.decode(one["segmentation"]).sum()) == one["area"] == row["area"]
        x, y, width, height = coco_mask.toBbox(one["segmentation"]).tolist()
        assert one["bbox"] == [x, y, width, height]
        assert one["image_id"] == 900 + row["row"]


def test_bad_input_is_one_line_and_leaves_nothing(
    pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    import pyarrow as pa

    parquet.write_table(pa.table({"path": ["a.png"]}), tmp_path / "wrong.parquet")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("mine")
    out = tmp_path / "out"
    cases = [
        ((tmp_path / "wrong.parquet", "-o", out), "has no column image; its columns are path"),
        ((pictures, "-o", tmp_path / "foreign"), "holds letter.txt and no job"),
        ((pictures, "-o", out, "--bundle", tmp_path / "no"), "no such bundle folder"),
        ((pictures, "-o", out, "--bundle", "s3://bucket/bundle"), "cannot be fetched"),
        ((pictures, "-o", out, "--shard", "3/2"), "--shard 3/2: k/n is needed"),
        ((tmp_path / "none.jsonl", "-o", out), "no such file"),
        ((pictures.parent / "p00000.png", "-o", out), "has no prompt"),
    ]
    for words, message in cases:
        done = batch(*words, code=2)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, done.stderr
        assert message in errors[0]
        assert "Traceback" not in done.stderr
        assert not out.exists()
    done = batch(pictures, "-o", undisturbed, "--multimask", "--batch-size", "2", code=2)
    assert "holds another job, whose multimask is False instead of True" in done.stderr


def test_a_wrong_address_is_one_line_and_leaves_nothing(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cases = [
        ("127.0.0.1:1", "no Ray cluster answers"),
        ("ray://127.0.0.1:1", "no Ray cluster answers"),
        ("127.0.0.1:99999", "HOST:PORT or ray://HOST:PORT is needed"),
    ]
    for address, message in cases:
        done = batch(pictures, "-o", out, "--address", address, code=2)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, done.stderr
        assert message in errors[0]
        assert "Traceback" not in done.stderr
        assert not out.exists()


def test_parquet_rows_and_everything(pictures: Path, tmp_path: Path) -> None:
    """A table with prompts as structs, and everything-mode, against glesam-run."""
    import contextlib
    import io

    import pyarrow as pa

    from glesam_runtime.cli import app
    from glesam_runtime.console import exit_code_of

    image = pictures.parent / "p00003.png"
    prompts = [
        [{"points": [[30.0, 40.0, 1.0]], "box": None}, {"points": [], "box": [3, 4, 40, 50]}]
    ]
    table = pa.table({"image": [str(image)], "prompts": prompts})
    parquet.write_table(table, tmp_path / "rows.parquet")
    search = ["--everything", "--points-per-side", "4", "--pred-iou-thresh", "0"]
    search += ["--stability-score-thresh", "0"]
    words: dict[str, tuple[list[str | Path], list[str | Path]]] = {
        "points": (["--prompts", tmp_path / "prompts.json"], [tmp_path / "rows.parquet"]),
        "everything": ([*search], [image, *search]),
    }
    (tmp_path / "prompts.json").write_text('[{"points": [[30, 40]]}, {"box": [3, 4, 40, 50]}]')
    for name, (own, other) in words.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            arguments = [str(image), "--json", "--no-files", "-q", *map(str, own)]
            assert exit_code_of(app, "glesam-run", arguments) == 0
        masks = json.loads(printed.getvalue())["images"][0]["masks"]
        assert len(masks) > 1
        batch(*other, "-o", tmp_path / name)
        found = masks_of(tmp_path / name)
        assert [row["counts"] for row in found] == [mask["rle"]["counts"] for mask in masks]
