"""The C++ library follows objects as Python does: masks are equal in every pixel of every frame."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from glesam_evaluation.moving_scenes import innermost, make_moving_scene
from glesam_runtime import Follower, GleSamPredictor

FRAMES = 50


def test_masks_are_equal_on_every_frame(nano: Path, programs: Path, tmp_path: Path) -> None:
    # 50 frames of 75: the board has covered an object by then.
    scene = make_moving_scene(3, frames=75, height=240, width=320)
    drawn = [scene.frame(index) for index in range(FRAMES)]
    drawn[7] = drawn[6]  # a still picture
    frames = np.stack([each.image for each in drawn])
    points = np.array([[innermost(mask.astype(np.uint8))] for mask in drawn[0].masks[:3]])
    again = np.array([[innermost((drawn[-2].instances == 1).astype(np.uint8))]])
    save_file({"frames": frames, "points": points, "again": again}, tmp_path / "cases")
    files = [tmp_path / "cases", tmp_path / "results"]
    subprocess.run([programs / "follow", nano, *files], check=True)
    found = load_file(files[1])

    follower = Follower(GleSamPredictor(nano, backend="openvino"))
    lost = 0
    for index, frame in enumerate(frames):
        if index == 0:
            objects = follower.start(frame, points, np.ones((len(points), 1)))
        else:
            objects = follower.next(frame)
        if index == FRAMES - 2:
            objects[0] = follower.prompt(0, again[0], [1])
        for number, each in enumerate(objects):
            place = f"frame {index}, object {number}"
            mask = found["masks"][index, number].astype(bool)
            np.testing.assert_array_equal(mask, each.mask, place)
            assert bool(found["lost"][index, number]) == each.lost, place
            score, stability, area, *box = found["numbers"][index, number]
            np.testing.assert_allclose([score, stability], [each.score, each.stability], atol=1e-5)
            left, top, right, bottom = each.box
            assert (area, *box) == (each.area, left, top, right - left, bottom - top), place
            lost += each.lost
    print(f"{FRAMES} frames, {len(points)} objects, {lost} times lost")
    assert 0 < lost < FRAMES  # both states are compared
