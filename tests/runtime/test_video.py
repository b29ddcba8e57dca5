"""glesam-run --video writes a video and JSON Lines, and refuses what is no video."""

from __future__ import annotations

import json
import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from glesam_evaluation.moving_scenes import make_moving_scene
from glesam_runtime import Follower, GleSamPredictor, console
from glesam_runtime.cli import app
from glesam_runtime.video_file import VideoWriter, open_video

av = pytest.importorskip("av")
FRAMES = 8
SCENE = make_moving_scene(3, frames=75, height=96, width=128, objects=2)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = console.exit_code_of(app, "glesam-run", [str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def write(path: Path, codec: str, pixels: str = "yuv420p", frames: int = FRAMES) -> Path:
    """Write the scene with PyAV, without the code under test."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(SCENE.frame(index).image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video that loses no information, so that Python reads what was written."""
    return write(tmp_path_factory.mktemp("clip") / "clip.mkv", "ffv1", "bgr0")


def test_records_and_video(
    clip: Path, tmp_path: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = ("20,20,70,60", "60,30,120,90")
    options = [word for box in boxes for word in ("--box", box)]
    code, out, err = run(
        capsys, "--video", clip, *options, "--bundle", toy_bundle, "-o", tmp_path / "out"
    )
    assert code == 0, err
    assert "8 frames" in out
    folder = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert folder == ["clip_masks.jsonl", "clip_masks.mp4"]
    lines = [json.loads(line) for line in (tmp_path / "out/clip_masks.jsonl").open()]
    assert [(line["frame"], line["id"]) for line in lines] == [
        (frame, number) for frame in range(FRAMES) for number in (1, 2)
    ]
    follower = Follower(GleSamPredictor(toy_bundle))
    numbers = [[float(each) for each in box.split(",")] for box in boxes]
    for frame in range(FRAMES):
        image = SCENE.frame(frame).image
        objects = follower.next(image) if frame else follower.start(image, box=numbers)
        for line, each in zip(lines[2 * frame : 2 * frame + 2], objects, strict=True):
            mask = coco.decode(line["rle"]).astype(bool)
            np.testing.assert_array_equal(mask, each.mask)
            assert line["lost"] is each.lost
            assert line["box"] == list(each.box)
            assert line["area"] == each.area == np.count_nonzero(mask)
            assert line["time"] == pytest.approx(frame / 25)
    with av.open(str(tmp_path / "out/clip_masks.mp4")) as video:
        drawn = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(drawn) == FRAMES
    assert drawn[0].shape == (96, 128, 3)
    assert np.abs(drawn[0].astype(int) - SCENE.frame(0).image).max() > 60  # a mask lies over it


def test_frames_limits(
    clip: Path, tmp_path: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--box", "20,20,70,60", "--bundle", toy_bundle, "-o", tmp_path, "--frames", 3)
    code, _, err = run(capsys, "--video", clip, *words)
    assert code == 0, err
    assert len((tmp_path / "clip_masks.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("a.avi", "mjpeg", "yuvj420p"), ("a.mkv", "ffv1", "bgr0")]
)
def test_a_video_that_breaks_off(
    name: str,
    codec: str,
    pixels: str,
    tmp_path: Path,
    toy_bundle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = write(tmp_path / name, codec, pixels, frames=16)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) * 6 // 10])
    words = ("--box", "20,20,70,60", "--bundle", toy_bundle, "-o", tmp_path / "out")
    code, _, err = run(capsys, "--video", whole, *words)
    assert code == 2
    assert "breaks off" in err
    records = (tmp_path / "out/a_masks.jsonl").read_text().splitlines()
    assert 3 < len(records) < 16
    assert f"hold the {len(records)} frames" in err
    with av.open(str(tmp_path / "out/a_masks.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == len(records)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.mp4"], "missing.mp4: no such file"),
        (["/dev/video99"], "/dev/video99: no such device"),
        (["text.mp4"], "text.mp4: is not a video that FFmpeg can read"),
        (["."], ".: is a folder"),
        (["http://127.0.0.1/a.mp4"], "no such file"),
        (["clip.mkv", "--points", "500,5"], "outside the image of 128 x 96 pixels"),
        (["clip.mkv", "--everything"], "--video and --everything exclude each other"),
        (["clip.mkv", "--json"], "--video and --json exclude each other"),
        (["clip.mkv", "a.png"], "--video and images exclude each other"),
        (["clip.mkv"], "no prompt"),
    ],
)
def test_errors(
    words: list[str],
    message: str,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    os.link(clip, "clip.mkv")
    Path("text.mp4").write_text("no video\n" * 99)
    asked = any(word in words for word in ("--points", "--everything")) or words == ["clip.mkv"]
    prompt = [] if asked else ["--points", "5,5"]
    code, _, err = run(capsys, "--video", *words, *prompt, "-o", "out")
    assert code == 2
    assert message in err
    assert not Path("out").exists()


def test_a_device_needs_a_number_of_frames(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--video", "/dev/null", "--points", "5,5")
    assert code == 2
    assert "/dev/null: a device, which has no end; add --frames N" in err
    code, _, err = run(capsys, "--video", "/dev/null", "--points", "5,5", "--frames", "3")
    assert code == 2
    assert "/dev/null: cannot be opened as a camera" in err


def test_without_pyav(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = run(capsys, "--video", clip, "--points", "5,5")
    assert code == 2
    assert "pip install 'glesam-runtime[video]'" in err


def test_the_output_is_not_the_input(
    clip: Path, tmp_path: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.link(clip, tmp_path / "clip.mkv")
    (tmp_path / "clip_masks.mp4").symlink_to("clip.mkv")
    words = ("--box", "20,20,70,60", "--bundle", toy_bundle, "-o", tmp_path)
    code, _, err = run(capsys, "--video", tmp_path / "clip.mkv", *words)
    assert code == 2
    assert "is the input; choose another folder with -o" in err


def test_odd_sizes_are_written(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    writer = VideoWriter(tmp_path / "odd.mp4", 33, 47, Fraction(30))
    writer.write(image)
    writer.finish()
    with open_video(str(tmp_path / "odd.mp4")) as reader:
        assert (reader.height, reader.width) == (34, 48)
        assert len(list(reader.frames())) == 1
