"""Test the command line: what it prints, and its errors for wrong arguments."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from glesam_calibration.calibrator import state_folder
from glesam_calibration.cli import app
from glesam_runtime import open_bundle
from glesam_runtime.console import exit_code_of
from glesam_runtime.manifest_file import dump

FEW = ("--samples", "4", "--evaluate", "scenes:1@2000000", "--evaluate-images", "1")


def run(*arguments: str) -> int:
    return exit_code_of(app, "glesam-calibrate", arguments)


def test_quantize_and_report(
    tmp_path: Path, statistics: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b"
    shutil.copytree(statistics, state_folder(out))
    judged = ("--evaluate", "scenes:1@2000000", "--evaluate-images", "1")
    assert run("nano", "--int8", *judged, "--resume", "-o", str(out)) == 0
    printed = capfd.readouterr()
    assert "no images given: calibrating on procedural ones" in printed.err
    assert "LQ-3" in printed.out
    assert f"wrote {out}" in printed.out
    assert open_bundle(out).manifest.stages["encoder"].precision == "int8"

    report = tmp_path / "report"
    arguments = ("scenes:1@7", "--prompts", "box", "-o", str(report))
    assert run("report", "nano", str(out), *arguments) == 0
    printed = capfd.readouterr()
    assert "ground-truth IoU lost" in printed.out
    text = (report / "report.md").read_text()
    for row in ("| box ", "quantized against float", "## Dice", "## PA", "LQ mean"):
        assert row in text
    assert (report / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "one of --int8 and --fp8"),
        (("--int8", "--fp8"), "one of --int8 and --fp8"),
        (("--int8", "--method", "mean"), "--method mean: must be one of mse, min-max"),
        (("--int8", "--method", "entropy", "--percentile", "99"), "requires --method percentile"),
        (("--fp8", "--method", "mse"), "mse: supports int8 only"),
        (("--int8", "--percentile", "20"), "above 50"),
        (("--int8", "--smooth", "2"), "from 0 to 1"),
        (("--int8", "--weights-only", "head"), "comma-separated list of encoder"),
        (("--int8", "--float", "encoder"), "must be STAGE:LAYER"),
        (("--int8", "--target-iou", "2"), "must be above 0 and at most 1"),
        (("--int8", "--sensitivity", "x"), "requires --target-iou"),
        (("--int8", "--by", "stage"), "layer or block"),
        (("--int8", "--images", "nowhere"), "nowhere: no such file or folder"),
        (("--int8", "--evaluate", "scenes:x"), "scenes:N"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("nano", *arguments, "-o", str(tmp_path / "b")) == 2
    error = capfd.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bundles_that_do_not_belong_together(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = open_bundle()
    other = Path(shutil.copytree(bundle.path, tmp_path / "other"))
    model = replace(bundle.manifest.model, gamma=3.0)
    (other / "manifest.json").write_bytes(dump(replace(bundle.manifest, model=model)))
    assert run("report", "nano", str(other), "scenes:1") == 2
    assert "another model" in capfd.readouterr().err


def test_help_needs_no_libraries() -> None:
    script = (
        "import sys\n"
        "sys.argv = ['glesam-calibrate', '--help']\n"
        "import glesam_calibration.cli as cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end\n"
        "heavy = {'numpy', 'onnx', 'onnx_ir', 'cv2', 'onnxruntime', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("quantize", "sensitivity", "report"):
        assert command in done.stdout


def test_interrupted_it_says_how_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from glesam_calibration import calibrator

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrator, "collect_statistics", stop)
    assert run("nano", "--int8", *FEW, "-o", str(tmp_path / "b")) == 130
    assert "--resume continues" in capfd.readouterr().err
