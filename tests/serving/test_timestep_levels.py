"""The server, its client and Triton choose among the timesteps of a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from msgspec.structs import replace

from glesam_runtime import GleSamPredictor, chain
from glesam_runtime.bundle import open_bundle
from glesam_runtime.errors import InputError
from glesam_serving import Client
from glesam_serving.server.model import Model
from glesam_serving.settings import ServerOptions
from glesam_serving.triton.config import GraphModel, graph_config
from glesam_serving.triton.repository import Wanted, write_repository
from glesam_serving.triton.stage_calls import StageCalls

from ..leveled import write_leveled
from .conftest import Running, png, serving, triton_utils


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_leveled(tmp_path_factory.mktemp("levels") / "bundle")


@pytest.fixture(scope="module")
def running(bundle: Path) -> Iterator[Running]:
    predictor = GleSamPredictor(bundle, backend="onnxruntime", timestep=100)
    with serving(Model(predictor, 1), ServerOptions()) as started:
        yield started


def picture() -> np.ndarray:
    return np.full((40, 60, 3), 90, np.uint8)


def test_each_request_names_its_timestep(running: Running, bundle: Path) -> None:
    """The oracle is a predictor of the same bundle in this process."""
    found = {}
    with running.http() as http:
        for step in (None, 1, 100, 400):
            params = {} if step is None else {"timestep": str(step)}
            answer = http.post("/v1/images", content=png(picture()), params=params)
            described = answer.json()
            assert described["timestep"] == (step or 100)
            raw = http.get(f"/v1/images/{described['image_id']}/embedding").content
            found[step] = described["image_id"], np.frombuffer(raw, "<f4")
        plain = http.post("/v1/images?enhance=false", content=png(picture())).json()
        assert "timestep" not in plain
    assert found[None][0] == found[100][0]
    assert len({name for name, _ in found.values()} | {plain["image_id"]}) == 4
    for step in (1, 400):
        predictor = GleSamPredictor(bundle, backend="onnxruntime", timestep=step)
        predictor.set_image(picture())
        np.testing.assert_array_equal(found[step][1], predictor.get_image_embedding().ravel())


def test_crops_of_everything_mode_use_the_timestep_of_the_image(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    enhance = chain.enhance

    def watched(engine: Any, manifest: Any, features: Any, timestep: Any = None) -> Any:
        seen.add(timestep)
        return enhance(engine, manifest, features, timestep)

    monkeypatch.setattr(chain, "enhance", watched)
    with running.http() as http:
        answer = http.post("/v1/images?timestep=400", content=png(picture()[:39]))
        name = answer.json()["image_id"]
        body = {"points_per_side": 2, "crop_n_layers": 1}
        assert http.post(f"/v1/images/{name}/everything", json=body).status_code == 200
    assert seen == {400}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("timestep=3", "timestep 3: this bundle has 1, 100, 400"),
        ("timestep=-1", "must be a number from 0"),
        ("timestep=1.5", "must be a number from 0"),
        ("enhance=false&timestep=1", "the enhancer does not run"),
    ],
)
def test_wrong_timesteps_are_refused(running: Running, query: str, message: str) -> None:
    with running.http() as http:
        answer = http.post(f"/v1/images?{query}", content=png(picture()))
    assert answer.status_code == 422
    assert message in answer.json()["detail"]


def test_a_server_without_levels_refuses_a_timestep(server: Running) -> None:
    with server.http() as http:
        answer = http.post("/v1/images?timestep=1", content=png(picture()))
        assert answer.status_code == 422
        assert "this bundle has timestep 1 only" in answer.json()["detail"]
        assert "timestep" not in http.post("/v1/images", content=png(picture())).json()


def test_the_client_passes_it_on(running: Running) -> None:
    with httpx.Client():
        client = Client(running.url)
    assert client.set_image(picture(), timestep=400).timestep == 400
    assert client.set_image(picture()).timestep == 100


def test_triton_gets_the_level(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    wanted = Wanted(True, "onnxruntime", "cpu", 1, 9, True, 400)
    write_repository(opened, tmp_path / "r", wanted)
    assert (tmp_path / "r/glesam_enhancer/warmup/level.bin").stat().st_size == 4
    assert 'key: "timestep"' in (tmp_path / "r/glesam/config.pbtxt").read_text()
    passed: dict[str, Any] = {}
    utils = triton_utils(passed, np.zeros((1, 256, 16, 16), np.float32))
    features = {chain.EMBEDDINGS: np.zeros((1, 256, 16, 16), np.float32)}
    outputs = {"enhancer": ("enhanced_embeddings",)}
    for joins, shape in ((False, (1,)), (True, (1, 1))):
        engine = StageCalls(utils, "1", outputs, joins)  # type: ignore[arg-type]
        chain.enhance(engine, opened.manifest, features, 400)
        assert passed["level"].shape == shape
        assert passed["level"].item() == 2


def test_triton_may_join_images_of_different_timesteps(bundle: Path) -> None:
    """An input of one number for each image needs an axis of its own in requests."""
    stage = open_bundle(bundle).manifest.stages["enhancer"]
    joined = replace(
        stage, inputs=tuple(replace(e, shape=("N", *e.shape[1:])) for e in stage.inputs)
    )
    config = graph_config(
        "enhancer", joined, GraphModel("onnxruntime", "model.onnx", 8), 1, "cpu", {"level": (1,)}
    )
    spelled = " ".join(config.split())
    assert 'name: "level" data_type: TYPE_FP32 dims: [1] reshape { shape: [] }' in spelled


def test_triton_refuses_a_timestep_that_is_not_there(bundle: Path) -> None:
    from glesam_runtime.timestep_levels import asked_timestep

    with pytest.raises(InputError, match="timestep 5: this bundle has"):
        asked_timestep(open_bundle(bundle).manifest, 5, True)
