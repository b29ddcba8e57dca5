"""Prompts are read from options and files, and errors name the wrong prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glesam_runtime import InputError
from glesam_runtime.image import geometry_of
from glesam_runtime.prompt_requests import check_request, from_file, from_options
from glesam_runtime.prompts import group_alike

GEOMETRY = geometry_of(90, 120, 64)


def test_points_together_are_one_prompt() -> None:
    (request,) = from_options(["120,80", "300.5,200,0"], [])
    assert request.points == ((120, 80), (300.5, 200))
    assert request.labels == (1, 0)
    assert request.box is None


def test_boxes_are_a_prompt_each_and_one_joins_points() -> None:
    assert [r.box for r in from_options([], ["0,0,5,5", "1,1,6,6"])] == [(0, 0, 5, 5), (1, 1, 6, 6)]
    (request,) = from_options(["3,3"], ["0,0,5,5"])
    assert request.box == (0, 0, 5, 5)
    assert request.points == ((3, 3),)
    with pytest.raises(InputError, match="with several --box"):
        from_options(["3,3"], ["0,0,5,5", "1,1,6,6"])


@pytest.mark.parametrize(
    ("points", "boxes"),
    [(["12"], []), (["1,2,3,4"], []), (["a,b"], []), ([""], []), ([], ["1,2,3"]), ([], ["1,2,3,"])],
)
def test_options_that_are_not_numbers(points: list[str], boxes: list[str]) -> None:
    with pytest.raises(InputError, match="is needed, in pixels"):
        from_options(points, boxes)


@pytest.mark.parametrize(
    ("points", "boxes", "words"),
    [
        (["nan,3"], [], "NaN"),
        (["500,3"], [], "outside"),
        (["5,3,2"], [], "label 2"),
        ([], ["9,9,3,20"], "x1 must exceed x0"),
        ([], ["inf,9,3,20"], "infinity"),
    ],
)
def test_options_that_do_not_fit_the_image(points: list[str], boxes: list[str], words: str) -> None:
    (request,) = from_options(points, boxes)
    with pytest.raises(InputError, match=f"^--(points|box): .*{words}"):
        check_request(request, GEOMETRY)


def write(folder: Path, document: object) -> Path:
    path = folder / "prompts.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_a_file(tmp_path: Path) -> None:
    entries = [
        {"points": [[1, 2], [3, 4, 0]]},
        {"points": [[5, 6], [7, 8]], "labels": [0, 1], "box": [0, 0, 9, 9]},
        {"box": [1, 1, 6, 6]},
    ]
    for document in (entries, {"prompts": entries}):
        first, second, third = from_file(write(tmp_path, document))
        assert (first.points, first.labels) == (((1, 2), (3, 4)), (1, 0))
        assert (second.labels, second.box) == ((0, 1), (0, 0, 9, 9))
        assert (third.points, third.box) == ((), (1, 1, 6, 6))


BAD_FILES = [
    ("", "not a prompts file"),
    ("{", "not a prompts file"),
    ("[" * 200_000, "not a prompts file"),
    ("[NaN]", "not a prompts file"),
    ("3", "not a prompts file"),
    ({"points": []}, "not a prompts file"),
    ([], "holds no prompts"),
    ([{}], "prompt 0: has neither points nor a box"),
    ([{"points": [[1]]}], "prompt 0: point 0 is not"),
    ([{"box": [1, 2, 3, 4]}, {"box": [1, 2, 3]}], "prompt 1: .*box"),
    ([{"points": [[1, 2]], "labels": [1, 0]}], "2 labels do not match 1 points"),
    ([{"points": [[1, 2, 1]], "labels": [1]}], "labels are given too"),
    ([{"point": [[1, 2]]}], "prompt 0: .*unknown field `point`"),
    ([{"points": [["a", 2]]}], "prompt 0: .*float"),
]


@pytest.mark.parametrize(("document", "words"), BAD_FILES, ids=lambda value: str(value)[:30])
def test_bad_files(document: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"prompts\.json: .*{words}|prompts\.json: {words}"):
        from_file(write(tmp_path, document))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        from_file(tmp_path / "none.json")


def test_alike_prompts_share_a_call() -> None:
    requests = [
        *from_options([], ["0,0,5,5", "1,1,6,6"]),
        *from_options(["3,3"], []),
        *from_options(["4,4"], ["0,0,5,5"]),
        *from_options(["7,7,0"], []),
    ]
    groups = group_alike([check_request(request, GEOMETRY) for request in requests])
    assert [members for members, _ in groups] == [[0, 1], [2, 4], [3]]
    boxes, points, both = (batch for _, batch in groups)
    assert boxes.boxes is not None
    assert boxes.boxes.tolist() == [[0, 0, 5, 5], [1, 1, 6, 6]]
    assert points.points.tolist() == [[[3, 3]], [[7, 7]]]
    assert points.labels.tolist() == [[1], [0]]
    assert both.size == 1
