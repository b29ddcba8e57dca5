"""Check the page's modules that know no browser, in Node: run lengths, history of prompts."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

PAGE = files("glesam_serving") / "page"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


def run(module: str, names: str, body: str, given: object = None) -> Any:
    """Run statements on names of a module; return what they pass to `answer`."""
    address = json.dumps((PAGE / module).as_uri())  # type: ignore[attr-defined]
    script = (
        f"import {{ {names} }} from {address};\n"
        "let text = ''; for await (const part of process.stdin) text += part;\n"
        "const given = JSON.parse(text);\n"
        "const answer = (value) => console.log(JSON.stringify(value));\n" + body
    )
    command = ["node", "--no-warnings", "--input-type=module", "--eval", script]
    done = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def masks() -> list[np.ndarray]:
    """Return masks of many kinds, uint8 [H, W]."""
    rng = np.random.default_rng(0)
    made = [
        np.zeros((7, 5)),
        np.ones((7, 5)),
        np.eye(9),
        np.ones((1, 1)),
        np.zeros((1, 300)),
        np.tri(300, 2000),
    ]
    made += [rng.random(rng.integers(1, 60, 2)) < rng.random() for _ in range(40)]
    large = np.zeros((3000, 2500))  # runs of more than 20 bits
    large[10:20, 2400:] = 1
    return [np.asarray(mask, np.uint8) for mask in [*made, large]]


def encoded(mask: np.ndarray) -> dict[str, Any]:
    rle = coco.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def test_mask_pixels_equal_pycocotools() -> None:
    every = masks()
    body = """
      answer(given.map((rle) => {
        const pixels = maskPixels(rle);
        const on = [];
        pixels.forEach((value, at) => value && on.push(at));
        return [pixels.length, on];
      }));"""
    answers = run("rle.js", "maskPixels", body, [encoded(mask) for mask in every])
    for mask, (length, on) in zip(every, answers, strict=True):
        assert length == mask.size
        np.testing.assert_array_equal(np.flatnonzero(mask), on)


def test_iou_equals_pycocotools() -> None:
    rng = np.random.default_rng(1)
    pairs = [tuple(rng.random((2, 23, 31)) < rng.random((2, 1, 1))) for _ in range(30)]
    one = np.zeros((4, 4), bool)
    one[1, 1] = True
    pairs += [(one, one), (one, ~one), (one, np.ones((4, 4), bool))]
    both = [[encoded(mask.astype(np.uint8)) for mask in pair] for pair in pairs]
    answers = run("rle.js", "iou", "answer(given.map(([one, other]) => iou(one, other)));", both)
    expected = [coco.iou([one], [other], [0])[0, 0] for one, other in both]
    np.testing.assert_allclose(answers, expected, rtol=1e-12)
    empty = encoded(np.zeros((3, 3), np.uint8))
    assert run("rle.js", "iou", "answer(iou(given, given));", empty) == 1


def test_session_undoes_and_redoes() -> None:
    body = """
      const session = new Session();
      const seen = [];
      const see = () => seen.push(
        session.objects.map(({ name, points, box }) => [name, points.length, box]));
      session.addPoint([1, 2, 1]); session.addPoint([3, 4, 0]); see();
      session.undo(); see();
      session.redo(); see();
      session.add(); session.setBox([9, 8, 3, 2]); see();
      session.rename("coin"); session.remove(); see();
      session.undo(); session.undo(); see();
      session.reset(); see();
      session.undo(); session.addPoint([5, 5, 1]);
      answer([seen, session.canRedo, new Set(session.objects.map(({ colour }) => colour)).size]);"""
    seen, can_redo, colours = run("session.js", "Session", body)
    two, one = ["Object 1", 2, None], ["Object 1", 1, None]
    box = ["Object 2", 0, [3, 2, 9, 8]]
    assert seen[:5] == [[two], [one], [two], [two, box], [two]]
    assert seen[5] == [two, box]
    assert [entry[1:] for entry in seen[6]] == [[0, None]]
    assert (can_redo, colours) == (False, 2)


def test_a_prompt_on_a_found_mask_starts_a_new_object() -> None:
    body = """
      const session = new Session();
      session.addFound([{ area: 4 }, { area: 2 }]);
      const found = session.objects.length;
      session.addPoint([1, 1, 1]);
      const added = session.objects.length;
      session.undo(); session.undo();
      answer([found, added, session.objects.length, session.objects[0].found]);"""
    assert run("session.js", "Session", body) == [2, 3, 1, None]
