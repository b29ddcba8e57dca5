"""The state of a predictor travels: embeddings in files, pickles and copies of predictors."""

from __future__ import annotations

import copy
import multiprocessing
import operator
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from glesam_runtime import (
    BundleError,
    EngineOptions,
    GleSamMaskGenerator,
    GleSamPredictor,
    InputError,
    load_embedding,
)
from glesam_runtime.image import Geometry
from glesam_runtime.overlap import StoppableEngine, StopSignal

BOX = [10, 10, 50, 50]


@pytest.fixture
def predictor(toy_bundle: Path, photo: np.ndarray) -> GleSamPredictor:
    made = GleSamPredictor(toy_bundle, backend="onnxruntime")
    made.set_image(photo)
    return made


def assert_same_masks(mine: GleSamPredictor, reference: GleSamPredictor) -> None:
    assert mine.original_size == reference.original_size
    for array, expected in zip(mine.predict(box=BOX), reference.predict(box=BOX), strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_embedding_is_set_again(
    backend: str, toy_bundle: Path, photo: np.ndarray, tmp_path: Path
) -> None:
    first = GleSamPredictor(toy_bundle, backend=backend)
    first.set_image(photo)
    path = tmp_path / "photo.safetensors"
    embedding = first.get_embedding()
    embedding.save(path)
    second = GleSamPredictor(toy_bundle, backend=backend)
    for each in (embedding, load_embedding(path)):
        second.reset_image()
        second.set_embedding(each)
        assert_same_masks(second, first)
        assert (second.input_size, second.timings.keys() & {"encoder", "enhancer"}) == (
            first.input_size,
            set(),
        )
    # It is a copy: neither the predictor nor its engine sees what happens to the arrays later.
    with pytest.raises(ValueError, match="read-only"):
        embedding.features["image_embeddings"][:] = 0
    first.set_image(photo[::-1].copy())
    np.testing.assert_array_equal(
        embedding.features["image_embeddings"], second.get_image_embedding()
    )


def test_an_existing_file_is_replaced_atomically(
    predictor: GleSamPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.safetensors"
    path.write_bytes(b"old")
    embedding = predictor.get_embedding()

    def full_disk(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(InputError, match="no space left"):
            embedding.save(path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"
    with pytest.raises(InputError, match="folder does not exist"):
        embedding.save(tmp_path / "none" / "photo.safetensors")
    embedding.save(path)
    assert load_embedding(path).geometry == predictor.geometry


def test_embeddings_of_others_are_refused(
    predictor: GleSamPredictor,
    toy_bundle: Path,
    tmp_path: Path,
    make_toy_bundle: Callable[..., Path],
) -> None:
    embedding = predictor.get_embedding()
    other = GleSamPredictor(make_toy_bundle(tmp_path / "other", trained=False))
    with pytest.raises(InputError, match="computed by the bundle"):
        other.set_embedding(embedding)
    plain = GleSamPredictor(toy_bundle, enhance=False)
    with pytest.raises(InputError, match="enhance=True, but this predictor has enhance=False"):
        plain.set_embedding(embedding)
    for wrong in (None, embedding.features["image_embeddings"]):
        with pytest.raises(InputError, match="ImageEmbedding is needed"):
            predictor.set_embedding(wrong)  # type: ignore[arg-type]
    good = embedding.features["image_embeddings"]
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "no arrays": ({"features": {}}, "no arrays"),
        "another name": ({"features": {"z": good}}, "holds z"),
        "a batch": ({"features": {"image_embeddings": np.repeat(good, 2, axis=0)}}, r"\[2, 256"),
        "float64": ({"features": {"image_embeddings": good.astype(np.float64)}}, "float64"),
        "NaN": ({"features": {"image_embeddings": good * np.float32("nan")}}, "NaN"),
        "another size": ({"geometry": Geometry(32, (24, 32), (90, 120))}, "of side 32"),
    }
    for changes, words in bad.values():
        with pytest.raises(InputError, match=words):
            predictor.set_embedding(replace(embedding, **changes))
    np.testing.assert_array_equal(predictor.get_image_embedding(), good)


def test_files_that_are_no_embeddings(
    predictor: GleSamPredictor, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.safetensors"
    predictor.get_embedding().save(path)
    good = path.read_bytes()
    arrays = load_file(path)

    def rewrite(old: bytes, new: bytes) -> bytes:
        assert old in good
        assert len(old) == len(new)
        return good.replace(old, new)

    def with_arrays(**changed: np.ndarray) -> bytes:
        from safetensors import safe_open

        path.write_bytes(good)
        with safe_open(path, "np") as opened:
            metadata = opened.metadata()
        save_file({**arrays, **changed}, path, metadata)
        return path.read_bytes()

    nan = np.full_like(arrays["image_embeddings"], np.nan)
    cases = {
        "empty": (b"", "cannot be read"),
        "truncated": (good[:-1], "cannot be read"),
        "text": (b"not an embedding at all", "cannot be read"),
        "golden": ((toy_bundle / "golden.safetensors").read_bytes(), "not an embedding"),
        "version": (rewrite(rb"\"version\":1", rb"\"version\":2"), "of version 2"),
        "words": (rewrite(rb"\"image_size\":64", rb"\"image_size\":[]"), "cannot be read"),
        "no pixels": (rewrite(b"[90,120]", b"[ 0,120]"), "does not exist"),
        "too wide": (rewrite(b"[48,64]", b"[48,65]"), "does not exist"),
        "NaN": (with_arrays(image_embeddings=nan), "NaN"),
        "half": (with_arrays(image_embeddings=nan.astype(np.float16)), "F16"),
    }
    for content, words in cases.values():
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            load_embedding(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    path.write_bytes(good)
    monkeypatch.setenv("GLESAM_MAX_MEGAPIXELS", "1")
    assert load_embedding(path).enhanced
    with path.open("ab") as file:
        file.truncate(2 << 20)
    monkeypatch.setenv("GLESAM_MAX_EMBEDDING_MIB", "1")
    with pytest.raises(InputError, match="the limit of 1 MiB"):
        load_embedding(path)
    os.mkfifo(tmp_path / "fifo")
    for nothing in (tmp_path / "fifo", tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="no such file"):
            load_embedding(nothing)


def unpickled(content: bytes) -> Any:
    return pickle.loads(content)  # noqa: S301 - made by this test


def test_a_pickled_predictor_loads_again(predictor: GleSamPredictor, photo: np.ndarray) -> None:
    options = EngineOptions(threads=1)
    chosen = {"backend": "openvino", "enhance": False, "options": options, "prompt_batch": 3}
    for made in (predictor, GleSamPredictor(predictor.bundle, **chosen)):
        again = unpickled(pickle.dumps(made))
        assert type(again) is GleSamPredictor
        assert again.engine.describe() == made.engine.describe()
        assert not again.is_image_set
        assert pickle.dumps(again) == pickle.dumps(made)
        for each in (again, made):
            each.set_image(photo)
        assert_same_masks(again, made)
    assert len(pickle.dumps(predictor)) < 2000
    builtin = GleSamPredictor()
    assert str(builtin.bundle.path).encode() not in pickle.dumps(builtin)
    assert unpickled(pickle.dumps(builtin)).bundle == builtin.bundle


def test_a_pickle_belongs_to_its_bundle(
    toy_copy: Path, tmp_path: Path, make_toy_bundle: Callable[..., Path]
) -> None:
    pickled = pickle.dumps(GleSamPredictor(toy_copy, backend="onnxruntime"))
    shutil.rmtree(toy_copy)
    with pytest.raises(BundleError, match="no such bundle folder"):
        unpickled(pickled)
    make_toy_bundle(toy_copy, trained=False)
    with pytest.raises(BundleError, match="another bundle than the one of the predictor"):
        unpickled(pickled)


def test_a_spawned_process_gets_a_generator(
    toy_bundle: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy_bundle.parent)
    settings = {"points_per_side": 3, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    generator = GleSamMaskGenerator(GleSamPredictor(toy_bundle.name), **settings)
    # The other process cannot import this file from the folder that it starts in.
    search = operator.methodcaller("generate", photo)
    expected = len(search(generator))
    assert expected > 0
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert len(pool.apply_async(search, (generator,)).get(timeout=120)) == expected
    monkeypatch.chdir(toy_bundle)  # the relative path belongs to the folder of its time
    assert len(search(unpickled(pickle.dumps(generator)))) == expected


def test_copies(predictor: GleSamPredictor, photo: np.ndarray) -> None:
    shallow, deep = copy.copy(predictor), copy.deepcopy(predictor)
    reference = predictor.get_embedding()
    for each in (shallow, deep):
        assert_same_masks(each, predictor)
    deep.set_image(photo[::-1].copy())
    np.testing.assert_array_equal(
        predictor.get_image_embedding(), reference.features["image_embeddings"]
    )
    predictor.set_image_batch([photo, photo[::2].copy()])
    twin = copy.deepcopy(predictor)
    assert len(twin.predict_batch(box_batch=[BOX, BOX])[0]) == 2
    assert not twin.share().is_image_set
    generator = GleSamMaskGenerator(predictor, points_per_side=2)
    assert copy.deepcopy(generator).points_per_side == 2


def test_a_deep_copy_of_an_engine_that_serves_one_predictor_loads_again(
    predictor: GleSamPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from glesam_runtime import BackendError

    class Alone(StoppableEngine):
        def share(self) -> StoppableEngine:
            raise BackendError("runs one stream")

    alone = predictor.with_engine(Alone(predictor.engine, StopSignal()))
    alone.set_embedding(predictor.get_embedding())
    twin = copy.deepcopy(alone)
    assert twin.engine is not alone.engine
    assert_same_masks(twin, predictor)
