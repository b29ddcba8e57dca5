"""Many images and prompts give the same results as one at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from glesam_runtime import BackendError, GleSamPredictor, InputError, console
from glesam_runtime.cli import app
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.many import segment_many
from glesam_runtime.prompts import PromptBatch

COUNT = 7


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write images of several sizes, two with the same stem, and a file that is not an image."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(3)
    paths = []
    for index in range(COUNT):
        pixels = rng.integers(0, 256, (90 + 7 * index, 160 - 9 * index, 3), dtype=np.uint8)
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    paths.append(folder / "twin" / "2.png")
    paths[-1].parent.mkdir()
    Image.open(paths[4]).save(paths[-1])
    (folder / "broken.png").write_bytes(b"not an image")
    paths.insert(3, folder / "broken.png")
    return paths


def run(
    capsys: pytest.CaptureFixture[str], images: list[Path], out: Path, *options: object
) -> tuple[list[dict[str, Any]], dict[str, bytes], str]:
    """Run glesam-run; return the entries of --json without times, the files, and stderr."""
    arguments = [*images, *options, "--json", "-o", out]
    code = console.exit_code_of(app, "glesam-run", [str(argument) for argument in arguments])
    stdout, stderr = capsys.readouterr()
    assert code == 2, stderr  # because of the broken image
    document = json.loads(stdout)
    entries = document["images"]
    spent = [sum(entry.pop("seconds", {}).values()) for entry in entries]
    assert document["seconds"] >= max(spent)
    text = json.dumps(entries).replace(str(out), "OUT")
    return json.loads(text), {path.name: path.read_bytes() for path in out.iterdir()}, stderr


WAYS = {
    "overlapped": (),
    "two streams": ("--streams", 2),
    "three streams": ("--streams", 3, "--in-flight", 4),
    "one thread": ("--threads", 1, "--in-flight", 5),
}
TASKS = {
    "prompts": ("--box", "10,10,60,60", "--box", "0,0,30,40", "--multimask"),
    "everything": (
        *("--everything", "--points-per-side", 3, "--mask-files"),
        *("--pred-iou-thresh", 0.01, "--stability-score-thresh", 0.01),
    ),
}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("task", TASKS)
def test_every_way_writes_the_same(
    task: str,
    backend: str,
    toy_bundle: Path,
    images: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = (*TASKS[task], "--bundle", toy_bundle, "--backend", backend)
    entries, files, told = run(capsys, images, tmp_path / "0", *options, "--in-flight", 1)
    assert [Path(entry["image"]) for entry in entries] == images
    assert ["error" in entry for entry in entries] == [path.stem == "broken" for path in images]
    assert "2-2_overlay.png" in files
    assert told.count("error:") == 1
    assert len(files) > 2 * len(images)
    for name, way in WAYS.items():
        assert run(capsys, images, tmp_path / name, *options, *way) == (entries, files, told), name


def test_lines_come_in_order(
    toy_bundle: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*images, "--points", "9,9", "--bundle", toy_bundle, "-o", tmp_path]
    console.exit_code_of(app, "glesam-run", [str(argument) for argument in arguments])
    lines = capsys.readouterr().out.splitlines()
    shown = [line.partition("  ")[0] for line in lines if not line.startswith(" ")]
    assert shown == [str(path) for path in images if path.stem != "broken"]


def test_streams_of_an_engine_that_has_one(
    toy_bundle: Path,
    images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def share(_: object) -> None:
        raise BackendError("a bundle of engines runs one stream; leave out --streams")

    monkeypatch.setattr("glesam_runtime.backends.onnxruntime.OrtEngine.share", share)
    arguments = [*images, "--points", "9,9", "--bundle", toy_bundle, "-o", tmp_path / "out"]
    arguments += ["--backend", "onnxruntime", "--streams", "2"]
    code = console.exit_code_of(app, "glesam-run", [str(argument) for argument in arguments])
    stdout, stderr = capsys.readouterr()
    assert (code, stdout) == (2, "")
    assert stderr == "error: a bundle of engines runs one stream; leave out --streams\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    ("how", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_ctrl_c_leaves_whole_files_only(
    how: signal.Signals, code: int, word: str, tmp_path: Path, toy_bundle: Path
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (700, 900, 3), dtype=np.uint8)
    paths = [tmp_path / f"{index:03}.bmp" for index in range(150)]
    Image.fromarray(pixels).save(paths[0])
    for path in paths[1:]:
        path.hardlink_to(paths[0])
    out = tmp_path / "out"
    command = [sys.executable, "-m", "glesam_runtime", *paths, "--box", "9,9,800,600"]
    command += [
        "--box",
        "99,9,300,600",
        "--bundle",
        toy_bundle,
        "-o",
        out,
        "--backend",
        "onnxruntime",
    ]
    with subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Unbuffered: what readline() reads beyond its line would be lost to communicate().
        bufsize=0,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell starts background jobs with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(how)
        asked = time.monotonic()
        rest, stderr = process.communicate(timeout=60)
        took = time.monotonic() - asked
    assert (process.returncode, stderr.decode()) == (code, f"error: {word}\n")
    assert took < 10
    lines = (first + rest).decode().splitlines()
    shown = [line for line in lines if not line.startswith(" ")]
    assert [line.split()[0] for line in shown] == [str(path) for path in paths[: len(shown)]]
    names = sorted(path.name for path in out.iterdir())
    assert len(names) < 3 * len(paths)
    assert [name for name in names if name.startswith(".")] == []
    for name in names:
        Image.open(out / name).load()


@pytest.fixture(scope="module")
def predictor(toy_bundle: Path) -> GleSamPredictor:
    made = GleSamPredictor(toy_bundle, backend="onnxruntime")
    y, x = np.mgrid[0:90, 0:120]
    made.set_image(np.stack([x * 2, y * 2, (x + y) % 256], axis=-1).astype(np.uint8))
    return made


@given(
    count=st.integers(1, 23),
    points=st.integers(0, 3),
    with_masks=st.booleans(),
    at_a_time=st.integers(1, 9),
    multimask=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40)
def test_batches_equal_singles(
    predictor: GleSamPredictor,
    count: int,
    points: int,
    with_masks: bool,
    at_a_time: int,
    multimask: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    prompts = PromptBatch(
        rng.uniform(0, 90, (count, points, 2)),
        rng.integers(0, 2, (count, points)).astype(np.float32),
        None if points else np.tile([5.0, 6.0, 70.0, 80.0], (count, 1)) + rng.uniform(size=4),
        rng.normal(size=(count, 1, 16, 16)).astype(np.float32) if with_masks else None,
    )
    sizes: list[int] = []
    real = predictor.engine

    class Counted:
        device = real.device

        def run(self, stage: Any, inputs: Any) -> Any:
            sizes.append(len(inputs["point_coords"]))
            assert len(inputs["mask_input"]) == sizes[-1]
            return real.run(stage, inputs)

        def to_host(self, value: Any) -> Any:
            return real.to_host(value)

    def decode(batch: int) -> tuple[np.ndarray, np.ndarray]:
        made = predictor.with_engine(Counted())
        made.prompt_batch = batch
        made._geometry, made._features = predictor._geometry, predictor._features
        return made.decode(prompts, multimask)

    low_res, scores = decode(at_a_time)
    assert sum(sizes) == count
    assert len(sizes) == -(-count // at_a_time)
    assert max(sizes) <= at_a_time
    alone_low_res, alone_scores = decode(1)
    assert low_res.shape == (count, 3 if multimask else 1, 16, 16)
    np.testing.assert_allclose(low_res, alone_low_res, atol=1e-5)
    np.testing.assert_allclose(scores, alone_scores, atol=1e-6)


def test_a_predictor_has_its_own_batch(toy_bundle: Path, photo: np.ndarray) -> None:
    made = GleSamPredictor(toy_bundle, prompt_batch=2)
    made.set_image(photo)
    boxes = [[5 * n, 4 * n, 60 + n, 70 + n] for n in range(5)]
    masks, scores, low_res = made.predict(box=boxes)
    for index, box in enumerate(boxes):
        alone = made.predict(box=box)
        np.testing.assert_array_equal(masks[index], alone[0])
        np.testing.assert_allclose(scores[index], alone[1], atol=1e-6)
        np.testing.assert_allclose(low_res[index], alone[2], atol=1e-5)
    with pytest.raises(InputError, match="at least 1"):
        GleSamPredictor(toy_bundle, prompt_batch=0)


def test_a_share_has_an_image_of_its_own(toy_bundle: Path, photo: np.ndarray) -> None:
    for backend in ("onnxruntime", "openvino"):
        first = GleSamPredictor(toy_bundle, backend=backend)
        first.set_image(photo)
        second = first.share()
        assert not second.is_image_set
        second.set_image(photo[::-1].copy())
        there = second.predict([[60, 40]], [1])[2]
        here = first.predict([[60, 40]], [1])[2]
        first.set_image(photo[::-1].copy())
        np.testing.assert_array_equal(first.predict([[60, 40]], [1])[2], there)
        assert np.abs(here - there).max() > 0.1


def test_segment_many(toy_bundle: Path, images: list[Path], photo: np.ndarray) -> None:
    """Test files, arrays, single prompts and batches, and an error instead of one result."""
    prompts: list[dict[str, Any]] = [
        {"point_coords": [[60, 40]], "point_labels": [1]},
        {"box": [[5, 5, 50, 60], [9, 9, 80, 80]]},
        {"box": [5, 5, 50, 60]},
    ]
    sources = [*images, photo, photo[:, ::-1].copy()]
    asked = [(source, prompts[index % 3]) for index, source in enumerate(sources)]
    predictor = GleSamPredictor(toy_bundle, options=EngineOptions(streams=2))
    predictor.set_image(photo)
    results = list(segment_many(predictor, iter(asked), streams=2))
    assert len(results) == len(asked)
    assert predictor.original_size == photo.shape[:2]
    for (source, prompt), result in zip(asked, results, strict=True):
        if isinstance(source, Path) and source.stem == "broken":
            assert isinstance(result, InputError)
            continue
        pixels = np.asarray(Image.open(source)) if isinstance(source, Path) else source
        predictor.set_image(pixels)
        for ours, theirs in zip(result, predictor.predict(**prompt), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("streams", [1, 2])
def test_a_generator_may_reuse_its_arrays(toy_bundle: Path, streams: int) -> None:
    """One frame buffer, one point, one box, one mask and one dict, refilled for every image."""
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 256, (24, 60, 80, 3), dtype=np.uint8)
    mask_inputs = rng.normal(size=(len(frames), 1, 16, 16)).astype(np.float32) * 8

    def prompt(index: int) -> dict[str, Any]:
        return {
            "point_coords": np.array([[3.0 * index, 2.0 * index]]),
            "point_labels": [index % 2],
            "box": np.array([index, index, index + 30, index + 30], np.float64),
            "mask_input": mask_inputs[index],
        }

    def reusing() -> Any:
        frame, reused = np.empty_like(frames[0]), prompt(0)
        mask_input = reused["mask_input"] = np.empty_like(mask_inputs[0])
        for index, pixels in enumerate(frames):
            frame[:], mask_input[:] = pixels, mask_inputs[index]
            reused["point_coords"][:] = prompt(index)["point_coords"]
            reused["point_labels"][0] = index % 2
            reused["box"][:] = prompt(index)["box"]
            yield frame, reused
        frame[:], mask_input[:] = 0, 0

    predictor = GleSamPredictor(
        toy_bundle, backend="onnxruntime", options=EngineOptions(streams=streams)
    )
    results = list(segment_many(predictor, reusing(), streams=streams, in_flight=4))
    for index, result in enumerate(results):
        predictor.set_image(frames[index])
        for ours, theirs in zip(result, predictor.predict(**prompt(index)), strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"frame {index}")


def test_views_are_copied_too(toy_bundle: Path, photo: np.ndarray) -> None:
    """A reversed, read-only view of a buffer that is refilled."""
    buffer = np.empty_like(photo)
    view = buffer[:, ::-1]
    view.flags.writeable = False

    def reusing() -> Any:
        for shift in range(6):
            buffer[:] = np.roll(photo, shift * 9, axis=1)
            yield view, {"box": [5, 5, 50, 60]}
        buffer[:] = 0

    predictor = GleSamPredictor(toy_bundle, backend="onnxruntime")
    for shift, result in enumerate(segment_many(predictor, reusing())):
        predictor.set_image(np.roll(photo, shift * 9, axis=1)[:, ::-1])
        theirs = predictor.predict(box=[5, 5, 50, 60])
        np.testing.assert_array_equal(result.low_res_masks, theirs[2])
