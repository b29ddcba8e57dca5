"""glesam-bench refuses wrong options before it measures: one line and exit code 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from glesam_benchmark import compare_contenders, contenders
from glesam_runtime.bundle import builtin_bundle_path

Bench = Callable[..., tuple[int, str, str]]


def refused(result: tuple[int, str, str], *words: str, code: int = 2) -> None:
    found, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert found == code, err
    assert len(lines) == 1
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--backend tflite", ["--backend tflite", "onnxruntime", "openvino"]),
        ("--backend openvino:bf16 --backend openvino:bf16", ["openvino:bf16", "twice"]),
        ("nowhere", ["nowhere", "no such bundle folder"]),
        ("--rounds 0", ["--rounds", "1"]),
        ("--repeats 0", ["--repeats", "1"]),
        ("--threads 0", ["--threads", "1"]),
        ("--peer keras", ["--peer keras", "torch-compile", "plain-onnxruntime"]),
        ("--preset nano --random-weights 0", ["--random-weights", "--peers"]),
        ("--work here", ["--work", "--peers"]),
        ("--peers --gamma 7", ["--gamma", "exported with"]),
        ("--peers --preset sam_vit_b --random-weights 0", ["--preset sam_vit_b", "nano"]),
        ("growth nowhere", ["nowhere", "no such bundle folder"]),
        ("growth --backend tflite", ["--backend tflite"]),
        ("growth --rounds 0", ["--rounds", "1"]),
        ("profile --backend tflite", ["--backend tflite"]),
        ("profile nowhere", ["nowhere"]),
        ("profile --top 0", ["--top", "1"]),
        ("profile --peers", ["--peers"]),
    ],
)
def test_wrong_options(options: str, words: list[str], glesam_bench: Bench) -> None:
    refused(glesam_bench(*options.split()), *words)


@pytest.mark.parametrize("command", ["run", "growth", "profile"])
def test_output_is_no_file(command: str, glesam_bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("precious")
    refused(glesam_bench(command, "-o", file), str(file), "folder")
    assert file.read_text() == "precious"


def test_peers_need_the_bundles_weights(glesam_bench: Bench, nano_bundle: Path) -> None:
    refused(glesam_bench(nano_bundle, "--peers"), "random, seed 0", "weight options")


def test_a_bundle_of_graphs_is_no_engine(glesam_bench: Bench, here: None) -> None:
    options = "--backend", "tensorrt", "--rounds", 1
    refused(glesam_bench("profile", *options), "ONNX bundle", "glesam-export trt")


@pytest.mark.parametrize(
    ("missing", "peer", "words"),
    [
        ("torch", "pytorch", ["--peer pytorch", "torch", "glesam-deploy[export]"]),
        ("openvino", "plain-openvino-bf16", ["openvino", "pip install"]),
        ("C++", "torch-compile", ["C++ compiler", "CXX"]),
    ],
)
def test_what_a_peer_lacks_is_told(
    missing: str, peer: str, words: list[str], glesam_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "C++":
        monkeypatch.setenv("CXX", "no-such-compiler")
    else:
        find = contenders.importlib.util.find_spec
        monkeypatch.setattr(
            contenders.importlib.util, "find_spec", lambda n: None if n == missing else find(n)
        )
    refused(glesam_bench("--peer", peer, "--backend", "onnxruntime"), *words)
    # Without --peer, the peers that can run here are measured.
    from glesam_export.weight_options import WeightOptions

    found, left_out = contenders.peer_contenders((), WeightOptions(), "folder", None)
    assert peer not in [contender.name for contender in found]
    assert len(found) + len(left_out) == len(contenders.PEERS)
    assert any(words[-1] in line for line in left_out)


def test_without_torch_a_bundle_is_measured_all_the_same(
    glesam_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = compare_contenders.importlib.util.find_spec
    monkeypatch.setattr(
        compare_contenders.importlib.util, "find_spec", lambda n: None if n == "torch" else find(n)
    )
    code, out, _ = glesam_bench("--backend", "onnxruntime", "--rounds", 1)
    assert code == 0
    assert "torch is not installed: the report has no share" in out
    assert "matrix products here" not in out


def test_other_weights_are_found_out(
    glesam_bench: Bench,
    nano_bundle: Path,
    here: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(compare_contenders, "_machine", lambda *_: None)
    options = "--backend", "onnxruntime", "--rounds", 1, "--random-weights", 1
    code, out, err = glesam_bench(nano_bundle, *options, "--peer", "pytorch")
    assert code == 1
    assert "PyTorch eager fp32: its logits differ" in err
    assert "times as fast" in out
    folder = tmp_path / "work"
    found = glesam_bench(nano_bundle, *options, "--peer", "plain-onnxruntime", "--work", folder)
    refused(found, "random, seed 0", "random, seed 1", "weight options")
    assert not folder.exists()


def test_torch_is_not_imported_for_a_bundle() -> None:
    """Neither the command nor the process that measures a bundle imports torch."""
    script = (
        "import sys\n"
        "from glesam_benchmark import worker_jobs, worker, contenders\n"
        "from glesam_benchmark.cli import app\n"
        "from glesam_runtime.console import exit_code_of\n"
        "from glesam_runtime.engine_options import RequestedEngine\n"
        "assert exit_code_of(app, 'glesam-bench', ['--help']) == 0\n"
        "assert exit_code_of(app, 'glesam-bench', ['--rounds', '1', '--backend', 'x']) == 2\n"
        "ours = contenders.BundleRunner(RequestedEngine('onnxruntime'), sys.argv[1])\n"
        "run = worker.do(worker_jobs.Measure(sys.argv[1], ours, 1, sys.argv[2]))\n"
        "assert len(run.rounds) == 1\n"
        "assert not {'torch', 'onnx', 'matplotlib', 'scipy'} & set(sys.modules)\n"
    )
    masks = "/dev/null"
    done = subprocess.run(
        [sys.executable, "-c", script, str(builtin_bundle_path()), masks],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_variant_of_the_bundle(
    glesam_bench: Bench,
    nano_bundle: Path,
    here: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A variant gets a row of its own; a bundle of another model is refused."""
    monkeypatch.setattr(compare_contenders, "MATRIX_SIDE", 256)
    copy = shutil.copytree(builtin_bundle_path(), tmp_path / "typed")
    arguments = ("--backend", "onnxruntime", "--rounds", "1", "--json", "--variant")
    code, out, err = glesam_bench(*arguments, copy)
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [row["name"] for row in rows] == ["onnxruntime", "auto@typed"]
    assert rows[1]["title"] == "glesam-deploy, onnxruntime fp32, typed"
    assert rows[1]["difference"] == 0
    refused(glesam_bench(*arguments, nano_bundle), "holds another model")
