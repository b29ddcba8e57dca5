"""Objects are followed through frames, and a follower says when they are lost."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from glesam_evaluation.moving_scenes import innermost, make_moving_scene
from glesam_runtime import BusyError, Follower, GleSamPredictor, InputError
from glesam_runtime.compare import mask_iou
from glesam_runtime.errors import BackendError

SCENE = make_moving_scene(3, frames=75, height=120, width=160, objects=2)


@pytest.fixture(scope="module")
def nano() -> GleSamPredictor:
    return GleSamPredictor(backend="onnxruntime")


@pytest.fixture
def points() -> np.ndarray:
    return np.array([[innermost(mask.astype(np.uint8))] for mask in SCENE.frame(0).masks[:2]])


@pytest.fixture
def encoded(nano: GleSamPredictor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the images that the predictor encodes."""
    counts: list[int] = []
    own = nano.set_prepared
    monkeypatch.setattr(nano, "set_prepared", lambda *a: (counts.append(1), own(*a)))
    return counts


def test_objects_that_move_are_followed(nano: GleSamPredictor, points: np.ndarray) -> None:
    follower = Follower(nano, min_score=0, min_stability=0)
    objects = follower.start(SCENE.frame(0).image, points, [[1], [1]])
    assert follower.count == len(objects) == 2
    start = SCENE.frame(0).instances
    for index in range(1, 20):
        drawn = SCENE.frame(index)
        objects = follower.next(drawn.image)
    for number, each in enumerate(objects, start=1):
        truth = drawn.instances == number
        # The object has moved: the mask of the first frame is no longer right.
        assert mask_iou(each.mask, truth) > max(0.6, mask_iou(start == number, truth))
        rows, columns = np.nonzero(each.mask)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert each.box == box
        assert each.area == len(rows)


def test_a_hidden_object_is_lost_and_prompted_anew(
    nano: GleSamPredictor, points: np.ndarray
) -> None:
    follower = Follower(nano)
    image = SCENE.frame(0).image
    follower.start(image, points, [[1], [1]])
    noise = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    first, second = follower.next(noise)
    assert first.lost
    assert second.lost
    assert (first.area, first.box, first.mask.any()) == (0, (0, 0, 0, 0), False)
    back = follower.prompt(0, points[0], [1])
    assert not back.lost  # whoever prompts is believed
    again = follower.start(image, points, [[1], [1]])
    assert not any(each.lost for each in again)


def test_a_still_picture_is_not_encoded_again(
    nano: GleSamPredictor, points: np.ndarray, encoded: list[int]
) -> None:
    image, other = SCENE.frame(0).image, SCENE.frame(9).image
    follower = Follower(nano, min_score=0, min_stability=0)
    follower.start(image, points, [[1], [1]])
    still = [follower.next(image.copy()) for _ in range(3)]
    assert len(encoded) == 1
    fresh = Follower(nano, min_score=0, min_stability=0)
    fresh.start(image, points, [[1], [1]])
    for frame in still:
        nano.set_image(other)  # the follower notices, and encodes the frame again
        for mine, theirs in zip(fresh.next(image), frame, strict=True):
            np.testing.assert_array_equal(mine.mask, theirs.mask)
            assert (mine.score, mine.stability) == (theirs.score, theirs.stability)
    changed = image.copy()
    changed[5, 5, 1] ^= 1
    before = len(encoded)
    fresh.next(changed)
    assert len(encoded) == before + 1


def test_the_caller_may_reuse_the_array(nano: GleSamPredictor, points: np.ndarray) -> None:
    buffer = SCENE.frame(0).image.copy()
    follower = Follower(nano, min_score=0, min_stability=0)
    follower.start(buffer, points, [[1], [1]])
    buffer[:] = SCENE.frame(5).image
    reused = follower.next(buffer)
    follower.start(SCENE.frame(0).image, points, [[1], [1]])
    for mine, theirs in zip(reused, follower.next(SCENE.frame(5).image), strict=True):
        np.testing.assert_array_equal(mine.mask, theirs.mask)


@pytest.mark.parametrize("takes", [True, False])
def test_masks_are_prompts_if_the_model_takes_them(
    nano: GleSamPredictor, points: np.ndarray, monkeypatch: pytest.MonkeyPatch, takes: bool
) -> None:
    # A model that takes them repeats the mask; nano gives another one.
    decode, given = nano.decode, []

    def repeating(prompts, multimask_output=True):  # type: ignore[no-untyped-def]
        given.append(prompts.masks is not None)
        low_res, scores = decode(prompts, multimask_output)
        if takes and prompts.masks is not None:
            return prompts.masks.copy(), scores
        return low_res, scores

    monkeypatch.setattr(nano, "decode", repeating)
    follower = Follower(nano)
    follower.start(SCENE.frame(0).image, points, [[1], [1]])
    assert given == [False, True]  # the prompts, and the question
    follower.next(SCENE.frame(1).image)
    assert given[2] is takes


def test_wrong_use_is_refused(nano: GleSamPredictor, points: np.ndarray) -> None:
    image = SCENE.frame(0).image
    with pytest.raises(InputError, match="min_score 2: must be from 0 to 1"):
        Follower(nano, min_score=2)
    with pytest.raises(InputError, match="min_stability nan"):
        Follower(nano, min_stability=float("nan"))
    follower = Follower(nano)
    with pytest.raises(InputError, match="nothing is followed; call start first"):
        follower.next(image)
    with pytest.raises(InputError, match="outside the image"):
        follower.start(image, [[500, 5]], [1])
    with pytest.raises(InputError, match="no prompt"):
        follower.start(image)
    follower.start(image, points, [[1], [1]])
    with pytest.raises(InputError, match="100 x 120 pixels, but the frames before have 160 x 120"):
        follower.next(image[:, :100])
    with pytest.raises(InputError, match="object 2: there are 2"):
        follower.prompt(2, points[0], [1])
    with pytest.raises(InputError, match="2 prompts for one object"):
        follower.prompt(0, points, [[1], [1]])
    assert follower.count == 2


def test_a_start_that_fails_keeps_the_objects(
    nano: GleSamPredictor, points: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follower(nano)
    frame = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    follower.start(frame, np.full((2, 1, 2), 20.0), np.ones((2, 1)))

    def fails(_: object) -> bool:
        raise BackendError("the engine failed as planned")

    with monkeypatch.context() as patched:
        patched.setattr(follower, "_takes_masks", fails)
        with pytest.raises(BackendError):
            follower.start(frame, np.full((1, 1, 2), 30.0), np.ones((1, 1)))
    assert follower.count == 2
    assert len(follower.next(frame)) == 2


def test_a_second_thread_is_refused(nano: GleSamPredictor, points: np.ndarray) -> None:
    follower = Follower(nano)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            follower.start(SCENE.frame(0).image, points, [[1], [1]])
        except BusyError as error:
            raised.append(error)

    with follower.reserved():
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert len(raised) == 1


def test_the_header_of_the_page_names_the_defaults() -> None:
    # The C headers and the page repeat the figures of the follower.
    from glesam_runtime import follow

    root = Path(__file__).parents[2]
    header = (root / "runtime/cpp/include/glesam_follow.h").read_text()
    assert f"min_score = {follow.MIN_SCORE};" in header
    assert f"min_stability = {follow.MIN_STABILITY};" in header
