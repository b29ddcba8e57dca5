"""glesam-evaluate from the command line, and the reference model behind a checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamPredictor

from glesam_evaluation.datasets import open_dataset
from glesam_evaluation.prompting import draw_prompts
from glesam_evaluation.results import markdown, read_results
from glesam_evaluation.scenes import make_scene
from glesam_export.checkpoints import Checkpoint
from glesam_export.families.sam.reference import build_sam
from glesam_runtime.console import exit_code_of
from glesam_runtime.errors import BackendError
from glesam_training import evaluate_cli
from glesam_training.reference_segmenters import ReferenceStages, reference_segmenters

QUICK = ("--conditions", "clear", "--prompts", "box", "--max-masks", "1")


def run(*arguments: object) -> int:
    return exit_code_of(evaluate_cli.app, "glesam-evaluate", [str(a) for a in arguments])


def test_a_bundle_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules.update(torch=None, onnx=None, glesam_export=None)\n"
        "from glesam_training.evaluate_cli import app\n"
        "from glesam_runtime.console import exit_code_of\n"
        "sys.exit(exit_code_of(app, 'glesam-evaluate', sys.argv[1:]))\n"
    )
    out = tmp_path / "made" / "here"
    arguments = ["nano", "scenes:2@1", *QUICK, "--limit", "1", "-o", str(out), "--figures"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "1 of 1 images\n"
    assert {path.name for path in out.iterdir()} == {
        "features.png",
        "plot.png",
        "quality.png",
        "report.json",
        "report.md",
    }
    report = (out / "report.md").read_text()
    assert done.stdout.startswith(report)
    assert report.startswith("nano")
    assert "the built-in bundle, fp32, sha256" in report.splitlines()[0]
    found = read_results(out / "report.json")
    assert markdown(found) == report
    assert {row.image for row in found.rows} == {"scene-1"}
    assert found.segmenters == ["without enhancer", "with enhancer"]
    assert Image.open(out / "plot.png").format == "PNG"


@pytest.fixture
def checkpoint_folder(
    tmp_path: Path, nano_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a folder that `open_checkpoint` opens as nano with random weights."""
    from glesam_export.checkpoints import formats

    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "checkpoint.json").write_text("{}")
    opened: list[Path] = []
    monkeypatch.setattr(
        formats, "open_checkpoint", lambda path: opened.append(path) or nano_checkpoint
    )
    return folder


def test_a_checkpoint_with_json_alone_on_stdout(
    checkpoint_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("stays")
    arguments = (checkpoint_folder, "scenes:1", *QUICK, "--device", "cpu", "--json", "-o", out)
    assert run(*arguments) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.out == (out / "report.json").read_text()
    assert "untrained" in document["model"]
    assert str(checkpoint_folder) in document["model"]
    assert [mean["condition"] for mean in document["means"]] == ["clear", "clear"]
    assert len(document["rows"]) == 2
    assert (out / "mine.txt").read_text() == "stays"
    assert len(list(out.iterdir())) == 4


def test_the_reference_segments_as_segment_anything_does(nano_checkpoint: Checkpoint) -> None:
    """With random weights masks are noise, but both give the same noise."""
    image = make_scene(3, 180, 240).image
    truth = make_scene(3, 180, 240).masks[:2]
    prompts = [draw_prompts(truth, [0, 1], kind, 0, "x") for kind in ("3-point", "box")]
    decoder = nano_checkpoint.decoder()
    sam = build_sam(nano_checkpoint.encoder(), decoder.prompt_encoder, decoder.mask_decoder)
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    for name, segmenter in reference_segmenters(nano_checkpoint, "cpu").items():
        if name == "with enhancer":
            with torch.no_grad():
                predictor.features = nano_checkpoint.enhancer()(predictor.features).float()
        segmenter.set_image(image)
        for prompt in prompts:
            masks = segmenter.segment(prompt.points, prompt.labels, prompt.boxes)
            for index, mask in enumerate(masks):
                (expected,), _, _ = predictor.predict(
                    None if prompt.points is None else prompt.points[index],
                    None if prompt.labels is None else prompt.labels[index],
                    None if prompt.boxes is None else prompt.boxes[index],
                    multimask_output=False,
                )
                assert 0 < expected.mean() < 1
                assert (mask != expected).mean() < 1e-3, name


def test_a_device_that_is_not_there(nano_checkpoint: Checkpoint) -> None:
    for name in ("cuda:99", "toaster"):
        with pytest.raises(BackendError, match=f"--device {name}"):
            ReferenceStages(nano_checkpoint, name)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ((), "MODEL"),
        (("nano",), "DATA"),
        (("nowhere", "scenes:1"), "nowhere: no such file or folder"),
        (("empty", "scenes:1"), "neither a bundle"),
        (("text.txt", "scenes:1"), "neither a bundle"),
        (("text.safetensors", "scenes:1"), "text.safetensors"),
        (("broken", "scenes:1"), "manifest.json"),
        (("checkpoint", "scenes:1"), "checkpoint.json"),
        (("nano", "nowhere"), "nowhere: no such folder or file"),
        (("nano", "empty"), "no images"),
        (("nano", "scenes:0"), "at least 1"),
        (("nano", "scenes:1", "--images", "empty"), "--images"),
        (("nano", "scenes:1", "--prompts", "11-point"), "11-point"),
        (("nano", "scenes:1", "--conditions", "smog"), "smog"),
        (("nano", "scenes:1", "--recipe", "real"), "recipe 'real'"),
        (("nano", "scenes:1", "--empty", "2"), "--empty"),
        (("nano", "scenes:1", "--figures"), "--figures: needs a folder"),
        (("nano", "ecssd:nowhere"), "nowhere: no such folder; ECSSD is"),
        (("nano", "scenes:1", "--limit", "0"), "--limit"),
        (("nano", "scenes:1", "--max-masks", "0"), "--max-masks"),
        (("nano", "scenes:1", "--seed", "-1"), "--seed"),
        (("nano", "scenes:1", "--device", "toaster"), "toaster"),
        (("nano", "scenes:1", "-o", "text.txt"), "-o text.txt: is a file"),
        (("nano", "scenes:1", "-o", "taken"), "plot.png in it is a folder"),
        (("nano", "scenes:1", "-o", "text.txt/out"), "a parent of this path is a file"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    hint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "broken", "checkpoint", "taken/plot.png"):
        Path(name).mkdir(parents=True)
    for name in ("text.txt", "text.safetensors", "broken/manifest.json"):
        Path(name).write_text("text")
    Path("checkpoint/checkpoint.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert hint in captured.err
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_left_where_a_plot_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_folder: Path
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("glesam_evaluation.plot.draw", fail)
    out = tmp_path / "out"
    assert run(checkpoint_folder, "scenes:1", *QUICK, "--device", "cpu", "-o", out) == 2
    assert list(out.iterdir()) == []


def test_a_folder_of_ones_own_images(
    tmp_path: Path, checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = make_scene(5, 64, 80)
    data = tmp_path / "data"
    data.mkdir()
    Image.fromarray(scene.image).save(data / "photo.png")
    Image.fromarray(scene.instances.astype(np.uint8)).save(data / "photo_mask.png")
    assert len(open_dataset(str(data))[0].masks) == scene.count
    assert run(checkpoint_folder, data, *QUICK, "--device", "cpu", "--max-masks", "3") == 0
    captured = capsys.readouterr()
    assert "3 masks in 1 image of" in captured.out
    assert captured.err == "1 of 1 images\n"
