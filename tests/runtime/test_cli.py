"""glesam-run writes the right files, streams and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from glesam_runtime import GleSamPredictor, bundle, console, sample_image
from glesam_runtime.cli import app


def glesam_run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "glesam_runtime", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def run_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run glesam-run in this process, which is faster when only the messages matter."""
    code = console.exit_code_of(app, "glesam-run", [str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def image(tmp_path: Path, photo: np.ndarray) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    return path


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_mask_overlay_and_json(toy_bundle: Path, image: Path, photo: np.ndarray) -> None:
    folder = image.parent
    done = glesam_run(
        "photo.png", "--points", "60,40", "--bundle", toy_bundle, "-o", "out", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert written(folder / "out") == ["photo_mask.png", "photo_overlay.png"]
    pixels = np.asarray(Image.open(folder / "out" / "photo_mask.png"))
    assert pixels.shape == (90, 120)
    assert set(np.unique(pixels)) == {0, 255}

    predictor = GleSamPredictor(toy_bundle)
    predictor.set_image(photo)
    masks, scores, _ = predictor.predict([[60, 40]], [1], multimask_output=False)
    np.testing.assert_array_equal(pixels == 255, masks[0])

    document = json.loads(done.stdout)
    (entry,) = document["images"]
    (mask,) = entry["masks"]
    rle = {"size": mask["rle"]["size"], "counts": mask["rle"]["counts"].encode()}
    np.testing.assert_array_equal(coco.decode(rle) == 1, masks[0])
    assert mask["area"] == masks[0].sum() == coco.area(rle)
    x, y, width, height = coco.toBbox(rle).tolist()
    assert mask["box"] == [x, y, x + width, y + height]
    assert mask["predicted_iou"] == pytest.approx(scores[0], abs=1e-5)
    assert 0 < mask["stability_score"] < 1
    assert set(entry["seconds"]) == {
        "read",
        "preprocess",
        "encoder",
        "enhancer",
        "decoder",
        "masks_and_files",
    }
    assert document["engine"]["provider"] == "CPUExecutionProvider"
    assert document["bundle"]["sha256"] == bundle.open_bundle(toy_bundle).sha256
    assert (entry["width"], entry["height"]) == (120, 90)


def test_the_overlay_shows_the_mask_and_the_prompt(
    toy_bundle: Path, image: Path, photo: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    out = image.parent / "out"
    code, _, _ = run_here(
        capsys, image, "--points", "60,40", "--points", "20,70,0", "--bundle", toy_bundle, "-o", out
    )
    assert code == 0
    overlay = np.asarray(Image.open(out / "photo_overlay.png"))
    mask = np.asarray(Image.open(out / "photo_mask.png")) == 255
    assert overlay.shape == photo.shape
    assert overlay[40, 60].tolist() == [34, 197, 94]
    assert overlay[70, 20].tolist() == [239, 68, 68]
    changed = (overlay != photo).any(axis=-1)
    assert changed[mask].mean() > 0.95
    assert changed[~mask].mean() < 0.35


def test_several_prompts_and_multimask(
    toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = image.parent / "out"
    code, stdout, _ = run_here(
        capsys,
        *(image, "--box", "0,0,50,50", "--box", "20,20,100,80", "--multimask", "--json"),
        *("--bundle", toy_bundle, "-o", out),
    )
    assert code == 0
    masks = json.loads(stdout)["images"][0]["masks"]
    assert [m["prompt"] for m in masks] == [0, 0, 0, 1, 1, 1]
    assert [Path(m["file"]).name for m in masks] == [f"photo_mask_{i}.png" for i in range(6)]
    assert len(written(out)) == 7
    for mask in masks:
        assert np.count_nonzero(np.asarray(Image.open(mask["file"]))) == mask["area"]


def test_a_prompts_file_and_one_call_a_kind(
    toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [{"box": [0, 0, 50, 50]}, {"points": [[60, 40]]}, {"box": [20, 20, 100, 80]}]
    prompts = image.parent / "prompts.json"
    prompts.write_text(json.dumps(entries))
    arguments = (image, "--json", "--bundle", toy_bundle, "-o", image.parent / "out")
    _, stdout, _ = run_here(capsys, *arguments, "--prompts", prompts)
    together = json.loads(stdout)["images"][0]["masks"]
    for index, option in enumerate((["--box", "0,0,50,50"], ["--points", "60,40"])):
        _, stdout, _ = run_here(capsys, *arguments, *option)
        (alone,) = json.loads(stdout)["images"][0]["masks"]
        assert alone["rle"] == together[index]["rle"]


def test_one_bad_image_does_not_stop_the_rest(
    toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = image.parent
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    code, stdout, stderr = run_here(
        capsys,
        *(folder / "broken.jpg", image, folder / "none.png", "--points", "5,5", "--json"),
        *("--bundle", toy_bundle, "-o", folder / "out"),
    )
    assert code == 2
    lines = stderr.splitlines()
    assert [line.startswith("error: ") for line in lines] == [True, True]
    assert "broken.jpg" in lines[0]
    assert "none.png" in lines[1]
    entries = json.loads(stdout)["images"]
    assert ["error" in entry for entry in entries] == [True, False, True]
    assert written(folder / "out") == ["photo_mask.png", "photo_overlay.png"]


def test_stems_that_collide(
    toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = image.parent / "deep"
    other.mkdir()
    for name in ("photo.png", "PHOTO.bmp"):
        Image.open(image).save(other / name)
    out = image.parent / "out"
    code, _, _ = run_here(
        capsys,
        *(image, other / "photo.png", other / "PHOTO.bmp", "--points", "5,5"),
        *("--bundle", toy_bundle, "-o", out),
    )
    assert code == 0
    assert [name for name in written(out) if "mask" in name] == [
        "PHOTO-3_mask.png",
        "photo-2_mask.png",
        "photo_mask.png",
    ]


def test_fewer_in_flight_than_streams(
    toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = image.parent / "out"
    options = ("--points", "5,5", "--bundle", toy_bundle, "-o", out, "--backend", "onnxruntime")
    code, stdout, stderr = run_here(
        capsys, image, image, *options, "--streams", "2", "--in-flight", "1"
    )
    words = "1 images in flight: must be at least the number of streams, 2"
    assert_one_line_error(code, stdout, stderr, words)
    assert not out.exists()


def test_an_input_image_is_never_overwritten(
    toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = image.parent
    precious = folder / "photo_mask.png"
    Image.open(image).save(precious)
    before = precious.read_bytes()
    code, _, stderr = run_here(
        capsys, image, precious, "--points", "5,5", "--bundle", toy_bundle, "-o", folder
    )
    assert code == 2
    assert "photo_mask.png is an input image" in stderr
    assert precious.read_bytes() == before


BAD = {
    "points 12": (["--points", "12"], "x,y"),
    "NaN": (["--points", "nan,4"], "NaN"),
    "outside": (["--points", "121,4"], "outside the image of 120 x 90"),
    "wrong label": (["--points", "1,4,7"], "label 7"),
    "box backwards": (["--box", "50,5,40,20"], "x1 must exceed x0"),
    "box of three": (["--box", "50,5,40"], "x0,y0,x1,y1"),
    "no prompt": ([], "no prompt"),
    "missing prompts": (["--prompts", "none.json"], "none.json"),
    "unknown option": (["--pionts", "1,4"], "--pionts"),
    "unknown backend": (["--points", "1,4", "--backend", "x"], "known are"),
    "unknown device": (["--points", "1,4", "--device", "x"], "known are"),
    "everything by batches of prompts": (
        ["--everything", "--prompt-batch", "4"],
        "use --points-per-batch",
    ),
    "no batch": (["--points", "1,4", "--prompt-batch", "0"], "--prompt-batch"),
    "selftest with an image": (["--selftest"], "takes no images"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(
    name: str,
    toy_bundle: Path,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(image.parent)
    arguments, words = BAD[name]
    code, stdout, stderr = run_here(
        capsys, "photo.png", *arguments, "--bundle", toy_bundle, "-o", "out"
    )
    assert_one_line_error(code, stdout, stderr, words)
    assert written(image.parent) == ["photo.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--points", "1,4", "--backend", "x"], "known are auto, "),
        (["--selftest", "--backend", "x"], "known are auto, "),
        (["--points", "1,nan"], "--points: holds NaN"),
        (["--points", "1,4,inf"], "--points: holds NaN or infinity"),
        (["--points=-1,4"], "--points: point -1,4 lies outside"),
        (["--points", "1,4,7"], "--points: label 7 of point 1,4: must be 1"),
        (["--box", "5,5,5,9"], "--box: box 5,5,5,9: x1 must exceed x0"),
        (["--box", "1,2,inf,9"], "--box: holds NaN or infinity"),
        (["--prompts", "p.json"], "p.json: prompt 1: box 9,9,1,1: x1 must exceed x0"),
    ],
)
def test_what_no_model_accepts_is_reported_before_one_is_loaded(
    arguments: list[str],
    words: str,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_path: object) -> None:
        raise AssertionError("a bundle was opened")

    monkeypatch.setattr(bundle, "open_bundle", fail)
    monkeypatch.chdir(image.parent)
    (image.parent / "p.json").write_text('[{"points": [[1, 1]]}, {"box": [9, 9, 1, 1]}]')
    images = [] if "--selftest" in arguments else ["photo.png"]
    code, stdout, stderr = run_here(capsys, *images, *arguments)
    assert_one_line_error(code, stdout, stderr, words)


def assert_one_line_error(code: int, stdout: str, stderr: str, words: str) -> None:
    assert code == 2
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert words in stderr


def _flip(folder: Path) -> None:
    raw = bytearray((folder / "decoder.onnx").read_bytes())
    raw[100] ^= 1
    (folder / "decoder.onnx").write_bytes(raw)


BAD_BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing stage": (lambda b: (b / "encoder.onnx").unlink(), "encoder.onnx: missing"),
    "flipped byte": (_flip, "decoder.onnx: altered"),
    "not JSON": (lambda b: (b / "manifest.json").write_text("{"), "not a bundle manifest"),
    "newer": (
        lambda b: (b / "manifest.json").write_text('{"format":"glesam-bundle","version":9}'),
        "upgrade glesam-runtime",
    ),
    "no manifest": (lambda b: (b / "manifest.json").unlink(), "has no manifest.json"),
}


@pytest.mark.parametrize("name", BAD_BUNDLES)
def test_bad_bundles(
    name: str, toy_copy: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words = BAD_BUNDLES[name]
    spoil(toy_copy)
    out = image.parent / "out"
    code, stdout, stderr = run_here(
        capsys, image, "--points", "5,5", "--bundle", toy_copy, "-o", out
    )
    assert_one_line_error(code, stdout, stderr, words)
    assert not out.exists()


BAD_IMAGES = {
    "missing": (None, "no such file"),
    "empty": (b"", "empty file"),
    "text": (b"hello\n", "not an image"),
    "truncated": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10", "error: "),
    "zero pixels": (b"P6 0 0 255\n", "error: "),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images(
    name: str, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = BAD_IMAGES[name]
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    out = tmp_path / "out"
    code, stdout, stderr = run_here(
        capsys, path, "--points", "0,0", "--bundle", toy_bundle, "-o", out
    )
    assert_one_line_error(code, stdout, stderr, words)
    assert "bad.png" in stderr
    assert not out.exists()


def test_a_bad_image_in_a_process_of_its_own(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("not an image")
    done = glesam_run("bad.jpg", "--points", "0,0", "--bundle", toy_bundle, cwd=tmp_path)
    assert_one_line_error(done.returncode, done.stdout, done.stderr, "bad.jpg")
    assert written(tmp_path) == ["bad.jpg"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's always-full device")
def test_a_full_stdout_is_one_line(toy_bundle: Path, image: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "glesam_runtime", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("error: ")
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_space_for_the_results(
    toy_bundle: Path,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import errno

    real = Image.Image.save

    def save(self: Image.Image, path: object, *rest: object, **options: object) -> None:
        if "overlay" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, path, *rest, **options)

    monkeypatch.setattr(Image.Image, "save", save)
    out = image.parent / "out"
    code, stdout, stderr = run_here(
        capsys, image, "--points", "5,5", "--bundle", toy_bundle, "-o", out
    )
    assert_one_line_error(code, stdout, stderr, "no space left")
    assert written(out) == []


def test_debug_shows_the_traceback(toy_bundle: Path, tmp_path: Path) -> None:
    done = glesam_run("none.png", "--points", "12", "--debug", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("glesam_runtime.prompt_requests.from_options", interrupt)
    code, stdout, stderr = run_here(capsys, "photo.png", "--points", "1,1")
    assert (code, stdout) == (130, "")
    assert stderr.count("\n") <= 1


def test_untrained_and_built_in_are_said(
    make_toy_bundle: Callable[..., Path],
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_toy_bundle(image.parent / "nano", trained=False)
    monkeypatch.setattr(bundle, "builtin_bundle_path", lambda: folder)
    code, _, stderr = run_here(capsys, image, "--points", "5,5", "-o", image.parent / "out")
    assert code == 0
    assert "built-in nano" in stderr
    assert "untrained" in stderr


def test_selftest(
    toy_bundle: Path,
    make_toy_bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, stdout, stderr = run_here(capsys, "--selftest", "--bundle", toy_bundle)
    assert (code, stderr) == (0, "")
    assert "passed on onnxruntime" in stdout
    code, stdout, _ = run_here(capsys, "--selftest", "--bundle", toy_bundle, "--json")
    assert code == 0
    assert json.loads(stdout)["passed"] is True

    monkeypatch.setattr(  # a machine that computes the enhancer a little wrong
        "glesam_runtime.chain.enhance",
        lambda engine, manifest, features, timestep=None: {
            "image_embeddings": engine.to_host(features["image_embeddings"]) * np.float32(1.51)
            + 0.25
        },
    )
    code, stdout, stderr = run_here(capsys, "--selftest", "--bundle", toy_bundle)
    assert code == 1
    assert "FAILED" in stdout
    assert stderr.startswith("error: ")
    assert "enhancer enhanced_embeddings: relative L2" in stderr
    assert stderr.count("\n") == 1


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    code, stdout, _ = run_here(capsys, "--demo", "-o", out)
    assert code == 0
    masks = [f"sample_mask_{index}.png" for index in range(5)]
    assert written(out) == ["sample.jpg", "sample.json", *masks, "sample_overlay.png"]
    prompts = json.loads((out / "sample.json").read_text())
    for path, prompt in zip(masks, prompts, strict=True):
        mask = np.asarray(Image.open(out / path)) == 255
        assert 2000 < np.count_nonzero(mask) < 10_000
        if "box" in prompt:
            x0, y0, x1, y1 = prompt["box"]
            assert mask[y0:y1, x0:x1].sum() > 0.95 * mask.sum()
        for x, y, *label in prompt.get("points", []):
            assert mask[y, x] == (label != [0])
    *_, last = stdout.splitlines()
    assert last.startswith("Try next: glesam-run ")
    command = last.removeprefix("Try next: glesam-run ").split()
    code, _, _ = run_here(capsys, *command)
    assert code == 0
    assert (out / "sample_mask.png").is_file()


def test_demo_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, stdout, _ = run_here(capsys, "--demo", "--json", "-o", tmp_path)
    assert code == 0
    assert len(json.loads(stdout)["images"][0]["masks"]) == 5


@pytest.mark.parametrize(
    "more", [["photo.png"], ["--points", "1,1"], ["--everything"], ["--selftest"]]
)
def test_demo_takes_no_images_and_no_prompts(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, stdout, stderr = run_here(capsys, "--demo", *more, "-o", tmp_path / "out")
    assert_one_line_error(code, stdout, stderr, "--demo takes no images and no prompts")
    assert not (tmp_path / "out").exists()


def test_demo_overwrites_nothing_of_the_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sample.jpg").write_text("mine")
    code, stdout, stderr = run_here(capsys, "--demo", "-o", tmp_path)
    assert_one_line_error(code, stdout, stderr, "sample.jpg: exists and is not the sample")
    assert (tmp_path / "sample.jpg").read_text() == "mine"
    (tmp_path / "file").touch()
    code, stdout, stderr = run_here(capsys, "--demo", "-o", tmp_path / "file")
    assert_one_line_error(code, stdout, stderr, "is a file, a folder is needed")


def test_the_sample_image() -> None:
    sample = sample_image()
    assert (sample.shape, sample.dtype) == ((384, 512, 3), np.uint8)


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_help_without_numpy(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from glesam_runtime.cli import app\n"
        "from glesam_runtime.console import exit_code_of\n"
        "assert exit_code_of(app, 'glesam-run', ['--help']) == 0\n"
        "heavy = {'numpy', 'PIL', 'onnxruntime', 'msgspec'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--multimask" in done.stdout


@pytest.mark.parametrize("how", [["--points", "60,40"], ["--everything"]])
def test_a_scan_of_twelve_bits(
    toy_bundle: Path,
    photo: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    how: list[str],
) -> None:
    gray = photo[..., 1].astype(np.uint16)
    scan, plain = tmp_path / "scan.png", tmp_path / "plain.png"
    Image.fromarray(np.rint(gray / 255 * 4095).astype(np.uint16)).save(scan)
    Image.fromarray(gray.astype(np.uint8)).save(plain)
    common = [*how, "--bundle", toy_bundle, "-o", tmp_path / "out", "--json"]
    code, out, err = run_here(capsys, scan, *common)
    assert code == 0
    (entry,) = json.loads(out)["images"]
    assert "--depth 12" in entry["note"]
    assert err == f"note: {entry['note']}\n"
    code, out, err = run_here(capsys, scan, *common, "--depth", "12")
    assert (code, err) == (0, "")
    (read,) = json.loads(out)["images"]
    assert "note" not in read
    (expected,) = json.loads(run_here(capsys, plain, *common)[1])["images"]
    assert [mask["rle"] for mask in read["masks"]] == [mask["rle"] for mask in expected["masks"]]
    code, _, err = run_here(capsys, scan, *common, "--depth", "11")
    assert code == 2
    assert "auto" in err
