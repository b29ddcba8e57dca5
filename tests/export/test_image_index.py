"""Prompts of several images in one decoder call agree with PyTorch and with one image at a time."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from msgspec.structs import replace

from glesam_benchmark.profile import _stage_inputs
from glesam_calibration.calibrator import take_statistics
from glesam_export.build import Options
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.engines.build_options import EngineBuildOptions
from glesam_export.engines.compile import compile_network, parse
from glesam_export.families import HIGH_RES
from glesam_runtime import GleSamPredictor, image_index
from glesam_runtime.backends.tensorrt_api import import_family
from glesam_runtime.bundle import open_bundle
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.compare import GATES, relative_l2
from glesam_runtime.errors import BundleError
from glesam_runtime.image_index import OneImageEngine
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest_file import dump
from glesam_runtime.prompts import check_prompts
from glesam_runtime.selftest import run_selftest

from ..calibration.conftest import FEW, QUIET
from ..traced import Traced
from .conftest import random_nano, random_nano2

IMAGES = 3
OWNERS = np.asarray([2, 0, 2, 1, 0], np.float32)
"""Images of the prompts: out of order, and one with several."""
LIMIT = GATES["fp32"].stage_relative_l2
Arrays = dict[str, np.ndarray]


def call(checkpoint: RandomCheckpoint, has_mask: bool) -> tuple[Arrays, Arrays]:
    """Return the features of three images, and prompts on them."""
    rng = np.random.default_rng(3)
    side, latent = checkpoint.preset.image_size, checkpoint.preset.latent_size

    def noise(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    sam2 = checkpoint.preset.family == "sam2"
    features = {EMBEDDINGS: noise(IMAGES, 256, latent, latent)}
    if sam2:
        features[HIGH_RES[0]] = noise(IMAGES, 32, side // 4, side // 4)
        features[HIGH_RES[1]] = noise(IMAGES, 64, side // 8, side // 8)
    count = len(OWNERS)
    # Boxes have a padding point in SAM 2 alone; all prompts of a call have the same length.
    points, box = ([1, 0, -1], [2, 3, -1]) if sam2 else ([1, -1], [2, 3])
    labels = np.asarray([points, points, points, box, points], np.float32)
    prompts = {
        "point_coords": rng.uniform(0, side, (*labels.shape, 2)).astype(np.float32),
        "point_labels": labels,
        "mask_input": noise(count, 1, side // 4, side // 4),
        "has_mask_input": np.asarray([has_mask], np.float32),
    }
    return features, prompts


def one(features: Arrays, prompts: Arrays, index: int) -> Arrays:
    """Return the inputs of one prompt on its own image."""
    image = int(OWNERS[index])
    own = {name: value[image : image + 1] for name, value in features.items()}
    mine = {n: v if n == "has_mask_input" else v[index : index + 1] for n, v in prompts.items()}
    return {**own, **mine}


@pytest.fixture(scope="module", params=["nano", "nano2"])
def checkpoint(request: pytest.FixtureRequest) -> RandomCheckpoint:
    return random_nano() if request.param == "nano" else random_nano2()


@pytest.fixture(scope="module")
def decoders(
    checkpoint: RandomCheckpoint, traced: Traced, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return the decoder with an image index, and the one without."""
    paths = []
    for indexed in (True, False):
        folder = tmp_path_factory.mktemp("decoder")
        form = "decoder", "fp32", 1, folder
        stage = traced.export_stage(checkpoint, *form, image_index=indexed)
        paths.append(folder / stage.graph.file)
    return paths[0], paths[1]


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("has_mask", [False, True])
def test_every_prompt_sees_its_own_image(
    checkpoint: RandomCheckpoint, decoders: tuple[Path, Path], has_mask: bool
) -> None:
    """The oracle is the PyTorch reference, one image at a time."""
    features, prompts = call(checkpoint, has_mask)
    together = session(decoders[0]).run(None, {**features, **prompts, "image_index": OWNERS})
    reference, plain = checkpoint.decoder(), session(decoders[1])
    for index in range(len(OWNERS)):
        alone = one(features, prompts, index)
        with torch.no_grad():
            wanted = reference(**{name: torch.from_numpy(v) for name, v in alone.items()})
        for found, expected in zip(together, wanted, strict=True):
            assert relative_l2(found[index], expected[0].numpy()) < LIMIT
        for found, other in zip(together, plain.run(None, alone), strict=True):
            assert relative_l2(found[index], other[0]) < 1e-5


def test_images_do_not_mix(checkpoint: RandomCheckpoint, decoders: tuple[Path, Path]) -> None:
    """Another image in the same call changes no bit of a prompt's result."""
    features, prompts = call(checkpoint, False)
    decoder = session(decoders[0])
    first = decoder.run(None, {**features, **prompts, "image_index": OWNERS})
    changed = {name: value.copy() for name, value in features.items()}
    for value in changed.values():
        value[2] += 1
    second = decoder.run(None, {**changed, **prompts, "image_index": OWNERS})
    for before, after in zip(first, second, strict=True):
        untouched = OWNERS != 2
        np.testing.assert_array_equal(before[untouched], after[untouched])
        assert not np.array_equal(before[~untouched], after[~untouched])


def test_tensorrt_rtx_compiles_it(
    decoders: tuple[Path, Path], checkpoint: RandomCheckpoint, tmp_path: Path
) -> None:
    family = "sam2" if checkpoint.preset.family == "sam2" else "sam"
    api = import_family("tensorrt-rtx")
    inputs, _ = expected_interface("decoder", checkpoint.preset.image_size, 1, family, True)
    options = EngineBuildOptions("tensorrt-rtx", ["8.9"])
    engine = tmp_path / "decoder.engine"
    compile_network(api, parse(api, decoders[0]), inputs, options, engine, "decoder")
    assert engine.stat().st_size > 100_000


@pytest.fixture(scope="module")
def bundles(
    traced: Traced, nano_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return a bundle with an image index, made from the one without, and the latter."""
    folder = Path(shutil.copytree(nano_bundle, tmp_path_factory.mktemp("bundles") / "indexed"))
    form = "decoder", "fp32", 1, folder
    decoder = traced.export_stage(random_nano(), *form, image_index=True)
    plain = open_bundle(nano_bundle).manifest
    stages = {**plain.stages, "decoder": decoder}
    manifest = replace(plain, requires=("image_index",), stages=stages)
    (folder / "manifest.json").write_bytes(dump(manifest))
    return folder, nano_bundle


def test_it_passes_its_self_test(bundles: tuple[Path, Path]) -> None:
    """The golden file has one image, and its decoder call no index."""
    assert run_selftest(open_bundle(bundles[0]), "onnxruntime").passed


@pytest.mark.full
def test_an_export_verifies_it(traced: Traced, tmp_path: Path) -> None:
    manifest = traced.build_bundle(random_nano(), tmp_path / "made", Options(image_index=True))
    assert manifest.requires == ("image_index",)
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert open_bundle(tmp_path / "made").manifest == manifest


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_batch_of_images_is_decoded_in_one_call(
    bundles: tuple[Path, Path], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((40, 60), (60, 40), (50, 50))]
    points = [[[10, 10]], [[[20, 30]], [[5, 5]]], [[25, 25]]]
    labels = [[1], [[1], [0]], [1]]
    results, calls = [], []
    run = OneImageEngine.run

    def counted(self: OneImageEngine, stage: str, inputs: Arrays) -> Arrays:
        calls.append((stage, len(inputs["point_coords"]) if stage == "decoder" else 0))
        return run(self, stage, inputs)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(OneImageEngine, "run", counted)
    for bundle in bundles:
        predictor = GleSamPredictor(bundle, backend=backend)
        predictor.set_image_batch(images)
        calls.clear()
        results.append(predictor.predict_batch(points, labels, return_logits=True))
        if bundle == bundles[0]:
            assert calls == [("decoder", 4)]
    for mine, theirs in zip(*results, strict=True):
        for found, expected in zip(mine, theirs, strict=True):
            assert found.shape == expected.shape
            assert relative_l2(found, expected) < 1e-4


def test_calls_hold_at_most_the_prompt_batch_and_one_kind(bundles: tuple[Path, Path]) -> None:
    """Points, boxes, no prompts and many prompts come back in their order."""
    mine, theirs = (
        GleSamPredictor(bundle, backend="onnxruntime", prompt_batch=2) for bundle in bundles
    )
    results = []
    for predictor in (mine, theirs):
        asked = []
        for side in (40, 50, 60):
            predictor.set_image(np.full((side, side, 3), 4 * side, np.uint8))
            boxes = np.asarray([[1, 1, 20, 20], [5, 5, 30, 38], [2, 8, 20, 30]])
            given = {
                40: {"point_coords": [[[3, 4]]] * 3, "point_labels": [[1]] * 3},
                50: {"boxes": boxes},
                60: {"boxes": np.zeros((0, 4))},
            }[side]
            prompts = check_prompts(predictor.geometry, **given)
            asked.append((predictor.get_embedding(), prompts))
        asked.append((asked[0][0], asked[1][1]))
        results.append(predictor.decode_images(asked, multimask_output=False))
        assert predictor.geometry.original == (60, 60)
    assert [len(low_res) for low_res, _ in results[0]] == [3, 3, 0, 3]
    for found, expected in zip(*results, strict=True):
        for array, other in zip(found, expected, strict=True):
            assert array.shape == other.shape
            if array.size:
                assert relative_l2(array, other) < 1e-4


def test_a_manifest_and_its_decoder_must_agree(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """A reader that knows the feature refuses a bundle that names it without the input."""
    for bundle, before, after in (
        (bundles[0], '"image_index"\n', '"released_input"\n'),
        (bundles[1], '"model": {', '"requires": ["image_index"],\n  "model": {'),
    ):
        copy = Path(shutil.copytree(bundle, tmp_path / bundle.name))
        path = copy / "manifest.json"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after, 1))
        with pytest.raises(BundleError, match=r"the contract says|first_resize"):
            open_bundle(copy)


def test_a_compiled_decoder_limits_the_images_of_a_call() -> None:
    owner = np.asarray([0, 0, 0, 1, 2, 2, 3, 4])

    def sizes(most: int, most_images: int) -> list[list[int]]:
        return [list(owner[part]) for part in image_index._calls(owner, most, most_images)]

    assert sizes(8, 8) == [list(owner)]
    assert sizes(2, 8) == [[0, 0], [0, 1], [2, 2], [3, 4]]
    assert sizes(8, 2) == [[0, 0, 0, 1], [2, 2, 3], [4]]
    assert sizes(3, 1) == [[0, 0, 0], [1], [2, 2], [3], [4]]
    assert sizes(3, image_index._ANY_NUMBER) == [[0, 0, 0], [1, 2, 2], [3, 4]]


def test_its_graphs_can_be_calibrated_and_profiled(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    few = dataclasses.replace(FEW, samples=1)
    _, _, found = take_statistics(open_bundle(bundles[0]), few, tmp_path / "state", False, QUIET)
    assert set(found) == {"encoder", "enhancer", "decoder"}
    profiled = _stage_inputs(open_bundle(bundles[0]))["decoder"]
    assert profiled["image_index"].shape == profiled["point_coords"].shape[:1]
