"""Prompted results, those of --everything and prompts share one dialect, with published schemas."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from glesam_runtime import InputError, console
from glesam_runtime.cli import app
from glesam_runtime.demo import write_sample
from glesam_runtime.prompt_requests import from_file
from glesam_runtime.results import ImageError, ImageResult, Results

DOCS = Path(__file__).parents[2] / "docs"
WAYS = {
    "points": ["--points", "60,40", "--points", "20,70,0"],
    "boxes": ["--box", "0,0,50,50", "--box", "20,20,100,80", "--multimask"],
    "everything": [
        *("--everything", "--points-per-side", "4", "--pred-iou-thresh", "0.3"),
        *("--stability-score-thresh", "0.3", "--stability-score-offset", "0.05"),
    ],
}
SHARED = {"id", "box", "predicted_iou", "stability_score", "area", "rle"}


def schema(name: str) -> dict[str, Any]:
    published: dict[str, Any] = json.loads((DOCS / f"{name}.schema.json").read_text())
    return published


def test_the_published_schemas_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_schemas", DOCS / "make_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.schemas()
    assert set(made) == {path.name for path in DOCS.glob("*.schema.json")}
    for name, content in made.items():
        published = (DOCS / name).read_text()
        assert published == json.dumps(content, indent=2) + "\n", "run 'make schema'"
        jsonschema.Draft202012Validator.check_schema(json.loads(published))


@pytest.fixture
def images(tmp_path: Path, photo: np.ndarray) -> list[Path]:
    paths = [tmp_path / "photo.png", tmp_path / "bad.png"]
    Image.fromarray(photo).save(paths[0])
    paths[1].write_text("no image")
    return paths


@pytest.fixture(params=WAYS)
def document(
    request: pytest.FixtureRequest,
    toy_bundle: Path,
    images: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> dict[str, Any]:
    """Return the results of a good and a bad image, without any file."""
    given = [*images, *WAYS[request.param], "--json", "--no-files", "--bundle", toy_bundle]
    before = sorted(images[0].parent.iterdir())
    code = console.exit_code_of(app, "glesam-run", [str(each) for each in given])
    assert code == 2
    assert sorted(images[0].parent.iterdir()) == before
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_results_obey_their_schema(document: dict[str, Any]) -> None:
    jsonschema.validate(document, schema("results"))
    good, bad = document["images"]
    assert set(bad) == {"image", "error"}
    # The types name every key, so that the schema does too.
    read = msgspec.convert(document, Results)
    listed = [msgspec.convert(good, ImageResult), msgspec.convert(bad, ImageError)]
    assert json.loads(msgspec.json.encode(listed)) == document["images"]
    assert set(msgspec.to_builtins(read)) == set(document)
    assert not {"overlay", "instances", "file"} & {*good, *good["masks"][0]}


def test_masks_share_their_keys(document: dict[str, Any]) -> None:
    masks = document["images"][0]["masks"]
    assert [mask["id"] for mask in masks] == list(range(1, len(masks) + 1))
    for mask in masks:
        more = {"points", "crop"} if "points" in mask else {"prompt"}
        assert set(mask) == SHARED | more
        x, y, width, height = coco.toBbox(mask["rle"]).tolist()
        assert mask["box"] == [x, y, x + width, y + height]
        assert mask["area"] == coco.area(mask["rle"])


def test_results_are_prompts(document: dict[str, Any], tmp_path: Path) -> None:
    document["images"].pop()
    jsonschema.validate(document, schema("prompts"))
    masks = document["images"][0]["masks"]
    path = tmp_path / "results.json"
    for content in (document, masks, {"prompts": masks}):
        jsonschema.validate(content, schema("prompts"))
        path.write_text(json.dumps(content))
        requests = from_file(path)
        assert [list(request.box or ()) for request in requests] == [m["box"] for m in masks]
        points = [[list(point) for point in request.points] for request in requests]
        assert points == [mask.get("points", []) for mask in masks]
        assert {label for request in requests for label in request.labels} <= {1}


def test_results_of_several_images_are_no_prompts(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"images": [{"masks": []}, {"masks": []}]}')
    with pytest.raises(InputError, match=r"results\.json: holds the results of 2 images"):
        from_file(path)
    path.write_text('{"images": [{"image": "a.png", "error": "bad"}]}')
    with pytest.raises(InputError, match="holds no prompts"):
        from_file(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"pionts": [[1, 2]]},
        {"points": [[1, 2, 1, 1]]},
        {"points": [[1]]},
        {"box": [1, 2, 3]},
        {"box": "1,2,3,4"},
        {"box": [1, 2, 3, 4], "rle": {"size": [5, 5], "counts": "x"}},
    ],
)
def test_the_schema_refuses_what_the_program_refuses(entry: object, tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([entry]))
    with pytest.raises(InputError, match=r"prompts\.json: prompt 0"):
        from_file(path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([entry], schema("prompts"))


def test_prompts_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = write_sample(tmp_path)
    jsonschema.validate(json.loads(sample.prompts.read_text()), schema("prompts"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sample.prompts.read_bytes())))
    piped = from_file(Path("-"))
    assert [(r.points, r.box) for r in piped] == [
        (r.points, r.box) for r in from_file(sample.prompts)
    ]
