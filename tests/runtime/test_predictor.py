"""The predictor's shapes, batches and state, on the toy bundle."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glesam_runtime import BackendError, GleSamPredictor, InputError


@pytest.fixture
def predictor(toy_bundle: Path, photo: np.ndarray) -> GleSamPredictor:
    made = GleSamPredictor(toy_bundle)
    made.set_image(photo)
    return made


def test_shapes_are_sam_predictors(predictor: GleSamPredictor) -> None:
    for multimask, count in ((True, 3), (False, 1)):
        masks, scores, low_res = predictor.predict(
            np.array([[60, 40]]), np.array([1]), multimask_output=multimask
        )
        assert masks.shape == (count, 90, 120)
        assert masks.dtype == np.bool_
        assert scores.shape == (count,)
        assert low_res.shape == (count, 16, 16)
        assert low_res.dtype == np.float32


def test_logits_threshold_to_the_masks(predictor: GleSamPredictor) -> None:
    masks, _, _ = predictor.predict([[60, 40]], [1])
    logits, _, _ = predictor.predict([[60, 40]], [1], return_logits=True)
    assert logits.dtype == np.float32
    assert 0 < masks.mean() < 1
    np.testing.assert_array_equal(logits > 0, masks)


def test_a_batch_equals_its_members(predictor: GleSamPredictor) -> None:
    points = np.array([[[60, 40], [10, 20]], [[100, 80], [30, 30]], [[0, 0], [119, 89]]])
    labels = np.array([[1, 0], [1, 1], [0, 1]])
    boxes = np.array([[10, 10, 50, 50], [0, 0, 119, 89], [60, 5, 100, 80]])
    _, scores, together = predictor.predict(points, labels, boxes)
    assert together.shape == (3, 3, 16, 16)
    for index in range(3):
        _, alone_scores, alone = predictor.predict(points[index], labels[index], boxes[index])
        np.testing.assert_allclose(together[index], alone, atol=1e-5)
        np.testing.assert_allclose(scores[index], alone_scores, atol=1e-6)


def test_boxes_in_one_call(predictor: GleSamPredictor) -> None:
    masks, scores, low_res = predictor.predict(
        box=[[10, 10, 50, 50], [0, 0, 119, 89]], multimask_output=False
    )
    assert masks.shape == (2, 1, 90, 120)
    assert scores.shape == (2, 1)
    assert low_res.shape == (2, 1, 16, 16)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_one_prompt_has_no_leading_axis(count: int, predictor: GleSamPredictor) -> None:
    """The rule is SamPredictor's for one prompt and SAM2ImagePredictor's for several."""
    boxes, points = np.full((count, 4), [10, 10, 50, 50]), np.full((count, 2, 2), 30)
    low_res = np.zeros((count, 1, 16, 16))
    axis = () if count == 1 else (count,)
    for prompt in (
        {"box": boxes},
        {"box": boxes.tolist()},
        {"point_coords": points, "point_labels": np.ones((count, 2))},
        {"point_coords": points, "point_labels": np.ones((count, 2)), "box": boxes},
        {"box": boxes, "mask_input": low_res},
        {"box": boxes, "mask_input": np.zeros((1, 16, 16))},
    ):
        for logits in (True, False):
            found = predictor.predict(**prompt, return_logits=logits)
            assert [each.shape for each in found] == [
                (*axis, 3, 90, 120),
                (*axis, 3),
                (*axis, 3, 16, 16),
            ]


def test_points_of_label_minus_1_are_nowhere(predictor: GleSamPredictor) -> None:
    expected = predictor.predict([[60, 40]], [1])[2]
    for place in ([0, 0], [-1, -1], [5000, 3], [np.nan, np.inf]):
        _, _, padded = predictor.predict([[60, 40], place], [1, -1])
        np.testing.assert_allclose(padded, expected, atol=1e-5)


def test_shares_of_the_sides(predictor: GleSamPredictor) -> None:
    expected = predictor.predict([[60, 45]], [1], [12, 9, 120, 90])[2]
    shares = {"point_coords": [[0.5, 0.5]], "point_labels": [1], "box": [0.1, 0.1, 1, 1]}
    found = predictor.predict(**shares, normalize_coords=False)[2]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(InputError, match="outside the image"):
        predictor.predict([[60, 45]], [1], normalize_coords=False)
    for box in ([0.1, 0.1, 1], "all", [[0.1], [1, 2]]):
        with pytest.raises(InputError, match="box: not an array of numbers"):
            predictor.predict(box=box, normalize_coords=False)


def test_wrong_batches_of_images(predictor: GleSamPredictor, photo: np.ndarray) -> None:
    box = [10, 10, 50, 50]
    before = predictor.predict(box=box)[2]
    with pytest.raises(InputError, match="call set_image_batch first"):
        predictor.predict_batch(box_batch=[box])
    for images, words in (
        ([], "at least one image"),
        (photo, "must be a list"),
        ([photo, photo[..., 0]], r"image_list\[1\]: image: must be uint8"),
    ):
        with pytest.raises(InputError, match=words):
            predictor.set_image_batch(images)
    np.testing.assert_array_equal(predictor.predict(box=box)[2], before)
    predictor.set_image_batch((photo, photo[:50].copy()))
    with pytest.raises(InputError, match="box_batch: 1 elements for 2 images"):
        predictor.predict_batch(box_batch=[box])
    with pytest.raises(InputError, match=r"image 1 of the batch: box .* outside"):
        predictor.predict_batch(box_batch=[box, [10, 60, 20, 80]])
    for forget in (predictor.reset_predictor, lambda: predictor.set_image(photo)):
        predictor.set_image_batch([photo])
        forget()
        with pytest.raises(InputError, match="no batch of images"):
            predictor.predict_batch(box_batch=[box])


def test_tensors_need_torch(predictor: GleSamPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(InputError, match="no prompt is a torch tensor"):
        predictor.predict_torch(None, None, np.array([[1, 1, 9, 9]]))
    with pytest.raises(InputError, match="transformed_image: must be a torch tensor, not list"):
        predictor.set_torch_image([], (9, 9))
    assert "torch" not in sys.modules


def test_a_mask_alone_is_a_prompt(predictor: GleSamPredictor) -> None:
    _, _, low_res = predictor.predict([[60, 40]], [1], multimask_output=False)
    _, _, again = predictor.predict(mask_input=low_res, multimask_output=False)
    _, _, other = predictor.predict(mask_input=-low_res, multimask_output=False)
    assert again.shape == (1, 16, 16)
    assert np.abs(again - other).max() > 1


def test_enhance_changes_what_the_decoder_sees(toy_bundle: Path, photo: np.ndarray) -> None:
    enhanced, plain = GleSamPredictor(toy_bundle), GleSamPredictor(toy_bundle, enhance=False)
    for made in (enhanced, plain):
        made.set_image(photo)
    np.testing.assert_allclose(
        enhanced.get_image_embedding(), plain.get_image_embedding() * 1.5 + 0.25, atol=1e-5
    )
    assert "enhancer" not in plain.timings
    assert plain.engine.describe()["provider"] == "CPUExecutionProvider"
    with pytest.raises(BackendError, match="enhancer was not loaded"):
        plain.engine.run("enhancer", {"image_embeddings": plain.get_image_embedding()})


def test_state(predictor: GleSamPredictor, photo: np.ndarray) -> None:
    assert predictor.is_image_set
    assert predictor.original_size == (90, 120)
    assert predictor.input_size == (48, 64)
    before = predictor.get_image_embedding()
    with pytest.raises(InputError, match="uint8"):
        predictor.set_image(photo.astype(np.float32))
    np.testing.assert_array_equal(predictor.get_image_embedding(), before)
    predictor.reset_image()
    assert not predictor.is_image_set
    assert predictor.original_size is None
    for call in (lambda: predictor.predict([[1, 1]], [1]), predictor.get_image_embedding):
        with pytest.raises(InputError, match="set_image first"):
            call()


def test_bgr_is_rgb_backwards(predictor: GleSamPredictor, photo: np.ndarray) -> None:
    rgb = predictor.get_image_embedding()
    predictor.set_image(photo[..., ::-1], image_format="BGR")
    np.testing.assert_array_equal(predictor.get_image_embedding(), rgb)
    with pytest.raises(InputError, match="RGBX"):
        predictor.set_image(photo, image_format="RGBX")


@pytest.mark.parametrize("batch", [3, "dynamic"])
def test_static_and_dynamic_batches_agree(
    batch: int | str,
    tmp_path: Path,
    make_toy_bundle: Callable[..., Path],
    predictor: GleSamPredictor,
    photo: np.ndarray,
) -> None:
    other = GleSamPredictor(make_toy_bundle(tmp_path / "b", batch))
    other.set_image(photo)
    assert other.get_image_embedding().shape == (1, 256, 4, 4)
    np.testing.assert_allclose(
        other.predict([[60, 40]], [1])[2], predictor.predict([[60, 40]], [1])[2], atol=1e-5
    )


def test_unknown_names_are_told(toy_bundle: Path) -> None:
    with pytest.raises(BackendError, match="known are auto, onnxruntime"):
        GleSamPredictor(toy_bundle, backend="tensorflow")
    with pytest.raises(BackendError, match="known are cpu, cuda, cuda:N"):
        GleSamPredictor(toy_bundle, device="tpu")


def test_a_provider_that_is_not_there_is_an_error(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match=r"glesam-runtime\[gpu\]"):
        GleSamPredictor(toy_bundle, device="cuda")


def test_a_provider_that_is_dropped_after_loading_is_an_error(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr(  # what onnxruntime-gpu does when the CUDA libraries do not load
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: real(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(BackendError, match="runs it on CPUExecutionProvider"):
        GleSamPredictor(toy_bundle, device="cuda:0")


def test_a_missing_engine_names_the_extra(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"glesam-runtime\[cpu\]"):
        GleSamPredictor(toy_bundle, backend="onnxruntime")
