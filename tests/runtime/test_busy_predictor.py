"""A predictor that two threads use at once answers with an error and never mixes their images."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glesam_runtime import BusyError, GleSamMaskGenerator, GleSamPredictor
from glesam_runtime.image import preprocess

BOX = [10, 10, 50, 50]


class WaitingEngine:
    """Runs graphs on a real engine, and waits before a stage until the test lets it go on."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.stage = ""
        self.waits, self.go = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, stage: str, inputs: dict[str, Any]) -> dict[str, Any]:
        if stage == self.stage:
            self.waits.set()
            assert self.go.wait(60)
        outputs: dict[str, Any] = self._engine.run(stage, inputs)
        return outputs


@pytest.fixture
def predictor(toy_bundle: Path, photo: np.ndarray) -> GleSamPredictor:
    made = GleSamPredictor(toy_bundle, backend="onnxruntime")
    made.engine = WaitingEngine(made.engine)  # type: ignore[assignment]
    made.set_image(photo)
    return made


def calls(predictor: GleSamPredictor, photo: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return a call of each method that uses the engine or the image."""
    prepared = preprocess(photo, predictor.bundle.manifest.preprocessing)
    embedding = predictor.get_embedding()
    return {
        "set_image": lambda: predictor.set_image(photo),
        "set_prepared": lambda: predictor.set_prepared(prepared),
        "set_image_batch": lambda: predictor.set_image_batch([photo]),
        "set_embedding": lambda: predictor.set_embedding(embedding),
        "predict": lambda: predictor.predict(box=BOX),
        "predict_batch": lambda: predictor.predict_batch(box_batch=[BOX]),
        "get_embedding": predictor.get_embedding,
        "reset_image": predictor.reset_image,
        "generate": lambda: GleSamMaskGenerator(predictor).generate(photo),
    }


@pytest.mark.parametrize("stage", ["encoder", "enhancer", "decoder"])
def test_a_second_thread_is_refused(
    stage: str, predictor: GleSamPredictor, photo: np.ndarray
) -> None:
    engine: Any = predictor.engine
    other = photo[::-1].copy()
    alone = predictor.share()
    alone.set_image(photo if stage == "decoder" else other)
    expected = alone.predict(box=BOX)[2]
    attempts = calls(predictor, photo)

    def work() -> np.ndarray:
        if stage != "decoder":
            predictor.set_image(other)
        return predictor.predict(box=BOX)[2]

    engine.stage = stage
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        assert engine.waits.wait(60)
        for attempt in attempts.values():
            with pytest.raises(BusyError, match="in use by another thread; give each thread"):
                attempt()
        engine.go.set()
        np.testing.assert_array_equal(running.result(60), expected)
    for attempt in attempts.values():  # it is free again
        if attempt is not attempts["predict_batch"] and attempt is not attempts["generate"]:
            attempt()


def test_a_share_is_not_busy(predictor: GleSamPredictor, photo: np.ndarray) -> None:
    expected = predictor.predict(box=BOX)[2]
    other = predictor.share()
    engine: Any = predictor.engine
    engine.stage = "decoder"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(predictor.predict, box=BOX)
        assert engine.waits.wait(60)
        other.set_image(photo)
        np.testing.assert_array_equal(other.predict(box=BOX)[2], expected)
        engine.go.set()
        running.result(60)


def test_a_failure_leaves_it_free(predictor: GleSamPredictor) -> None:
    with pytest.raises(BusyError), predictor.reserved(), ThreadPoolExecutor(1) as pool:
        pool.submit(predictor.predict, box=BOX).result(60)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(predictor.predict, box=BOX).result(60)
