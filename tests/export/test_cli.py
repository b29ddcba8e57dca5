"""`glesam-export` reports wrong options and files in one line with exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from glesam_export import build
from glesam_export.checkpoints.checkpoint_folder import write_checkpoint_json
from glesam_export.checkpoints.packed_file import pack
from glesam_export.checkpoints.separate_files import WeightFiles
from glesam_export.verify.cases import LEVELS
from glesam_runtime.bundle import open_bundle
from glesam_runtime.errors import InputError

from ..released import Released
from ..traced import Traced
from .conftest import random_nano

Run = Callable[..., tuple[int, str, str]]


def refused(result: tuple[int, str, str], output: Path, *words: str) -> None:
    """Check for exit code 2, one error line with all these words, and no output."""
    code, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2, err
    assert len(lines) == 1
    assert "Traceback" not in err
    for word in words:
        assert word in lines[0]
    assert out == ""
    assert not output.exists()
    assert not list(output.parent.glob(f".{output.name}.partial*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", ["--preset"]),
        ("--preset sam_vit_b", ["--sam", "--random-weights"]),
        ("--preset big --random-weights 0", ["big", "nano"]),
        ("--preset nano --unet sd9 --random-weights 0", ["sd9", "sd21"]),
        ("--preset nano --unet sd21", ["--unet"]),
        ("--preset nano --gamma 5", ["--gamma", "built-in", "leave it out"]),
        ("--preset nano --random-weights 0 --gamma 0", ["--gamma", "positive"]),
        ("--preset nano --random-weights 0 --gamma nan", ["--gamma"]),
        ("--preset nano --random-weights 0 --timestep 1000", ["--timestep 1000", "0..999"]),
        ("--preset nano --random-weights -1", ["--random-weights"]),
        ("--preset nano --random-weights 0 --sam x.pth", ["exclude"]),
        ("--preset nano --sam x.pth", ["--sd", "--lora", "missing"]),
        ("--checkpoint x --sam y", ["--checkpoint", "--sam", "exclude"]),
        ("--checkpoint x --sd y", ["--checkpoint", "--sd", "exclude"]),
        ("--checkpoint x --lora y", ["--checkpoint", "--lora", "exclude"]),
        ("--checkpoint x --prompt-embeds y", ["--checkpoint", "--prompt-embeds", "exclude"]),
        ("--checkpoint x --random-weights 0", ["--checkpoint", "--random-weights", "exclude"]),
        ("--checkpoint nowhere", ["nowhere", "no such checkpoint", "checkpoint.json"]),
        ("--preset nano --sam x --sd y --lora z", ["--gamma", "--timestep"]),
        ("--preset nano --precision int8", ["int8", "calibration"]),
        ("--preset nano --precision fp64", ["fp64", "fp16"]),
        ("--preset nano --fp16 --bf16", ["fp16", "bf16", "one"]),
        ("--preset nano --verify some", ["--verify some", "fast", "full"]),
        ("--preset nano --batch 0", ["--batch 0"]),
        ("--preset nano --batch many", ["--batch many", "dynamic"]),
        ("--preset nano --image nowhere.png", ["nowhere.png"]),
        ("--preset nano2 --random-weights 0 --input released", ["--input released", "nano2"]),
        ("--preset nano --input square512", ["--input", "square512", "released"]),
    ],
)
def test_wrong_options(options: str, words: list[str], glesam_export: Run, tmp_path: Path) -> None:
    output = tmp_path / "b"
    refused(glesam_export("onnx", "-o", output, *options.split()), output, *words)


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ("", ("clear", "LQ-3")),
        ("--verify full", LEVELS),
        ("--fp16", LEVELS),
        ("--bf16 --verify fast", LEVELS),
    ],
)
def test_the_levels_to_verify_on(
    options: str,
    levels: tuple[str, ...],
    glesam_export: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rounding in half precision depends on the values, so those graphs see every level."""
    asked: list[tuple[str, ...]] = []

    def stop(checkpoint: Any, output: Path, how: build.Options, *rest: Any) -> None:
        asked.append(tuple(how.levels))
        raise InputError("enough")

    monkeypatch.setattr(build, "build_bundle", stop)
    glesam_export("onnx", "--preset", "nano", "-o", tmp_path / "b", *options.split())
    assert asked == [levels]


def test_debug_shows_where(glesam_export: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--batch"):
        glesam_export("onnx", "--preset", "nano", "-o", tmp_path / "b", "--batch", "0", "--debug")


def test_output_is_required(glesam_export: Run) -> None:
    code, _, err = glesam_export("onnx", "--preset", "nano")
    assert code == 2
    assert "--output" in err


@pytest.mark.parametrize("kind", ["file", "foreign folder"])
def test_output_that_is_not_a_bundle_is_left_alone(
    kind: str, glesam_export: Run, tmp_path: Path
) -> None:
    output = tmp_path / "mine"
    if kind == "file":
        output.write_text("precious")
    else:
        output.mkdir()
        (output / "thesis.tex").write_text("precious")
    code, _, err = glesam_export("onnx", "--preset", "nano", "-o", output)
    assert code == 2
    assert str(output) in err
    kept = output if kind == "file" else output / "thesis.tex"
    assert kept.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def spoil(released: Released, how: str) -> None:
    """Damage one of the files."""
    match how:
        case "sam missing":
            released.sam.unlink()
        case "sam empty":
            released.sam.write_bytes(b"")
        case "sam truncated":
            released.sam.write_bytes(released.sam.read_bytes()[:5000])
        case "sam is an image":
            released.sam.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 100)
        case "sam holds no tensors":
            torch.save({"epoch": 3}, released.sam)
        case "lora truncated":
            released.lora.write_bytes(released.lora.read_bytes()[:-100])
        case "lora of other layers":
            renamed = {f"unet.other{i}.lora.down.weight": torch.ones(4, 4) for i in range(5)}
            save_file(renamed, released.lora)
        case "lora of other shapes":
            tensors = load_file(released.lora)
            save_file({k: torch.ones(3, 3) for k in tensors}, released.lora)
        case "lora with half a pair":
            tensors = load_file(released.lora)
            tensors.pop(next(key for key in tensors if "up" in key))
            save_file(tensors, released.lora)
        case "unet of another preset":
            config = released.sd / "unet" / "config.json"
            text = json.loads(config.read_text()) | {"cross_attention_dim": 768}
            config.write_text(json.dumps(text))
        case "no unet config":
            (released.sd / "unet" / "config.json").unlink()
        case "no unet weights":
            (released.sd / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        case "no scheduler":
            shutil.rmtree(released.sd / "scheduler")
        case "v-prediction":
            config = released.sd / "scheduler" / "scheduler_config.json"
            text = json.loads(config.read_text()) | {"prediction_type": "v_prediction"}
            config.write_text(json.dumps(text))
        case "scheduler is not json":
            (released.sd / "scheduler" / "scheduler_config.json").write_text("{")
        case "text of another width":
            save_file({"c": torch.ones(1, 77, 768)}, released.prompt_embeds)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("sam missing", ["--sam", "no such file"]),
        ("sam empty", ["--sam", "sam.pth"]),
        ("sam truncated", ["--sam", "sam.pth"]),
        ("sam is an image", ["--sam", "sam.pth"]),
        ("sam holds no tensors", ["--sam", "no tensors"]),
        ("lora truncated", ["--lora", "lora.safetensors"]),
        ("lora of other layers", ["--lora", "other0", "other1", "other2", "and 2 more"]),
        ("lora of other shapes", ["--lora", "[3, 3]", "more"]),
        ("lora with half a pair", ["--lora", "one of its two"]),
        ("unet of another preset", ["--sd", "next is nano", "cross_attention_dim"]),
        ("no unet config", ["--sd", "config.json"]),
        ("no unet weights", ["--sd", "diffusion_pytorch_model"]),
        ("no scheduler", ["--sd", "scheduler_config.json"]),
        ("v-prediction", ["v_prediction", "epsilon"]),
        ("scheduler is not json", ["scheduler_config.json", "JSON"]),
        ("text of another width", ["--prompt-embeds", "[1, 77, 768]", "[1, 77, 64]"]),
    ],
)
def test_spoiled_files(
    how: str, words: list[str], released_copy: Released, glesam_export: Run, tmp_path: Path
) -> None:
    spoil(released_copy, how)
    output = tmp_path / "b"
    arguments = ["onnx", "--preset", "nano", "-o", output, *released_copy.options()]
    refused(glesam_export(*arguments), output, *words)


def test_verify_refuses_what_contradicts_the_bundle(
    nano_bundle: Path, glesam_export: Run, tmp_path: Path
) -> None:
    for option, value in (("--preset", "sam_vit_b"), ("--gamma", "3"), ("--timestep", "1")):
        result = glesam_export("verify", nano_bundle, "--random-weights", 0, option, value)
        refused(result, tmp_path / "none", option, "exported with")
    refused(glesam_export("verify", tmp_path / "none"), tmp_path / "none", "no such bundle")
    refused(glesam_export("verify", nano_bundle), tmp_path / "none", "random, seed 0")


def test_verify_with_the_same_and_with_other_weights(nano_bundle: Path, glesam_export: Run) -> None:
    code, out, _ = glesam_export("verify", nano_bundle, "--random-weights", 0)
    assert code == 0
    assert "passed" in out
    code, out, err = glesam_export("verify", nano_bundle, "--random-weights", 1)
    assert code == 1
    assert "FAILED" in out
    assert "outside its gate" in err
    assert "encoder" in err


def test_an_embedding_of_numbers_in_npy_is_read(
    released_copy: Released, glesam_export: Run, tmp_path: Path
) -> None:
    path = tmp_path / "c.npy"
    np.save(path, np.asarray(["words"]))
    arguments = ["onnx", "--preset", "nano", "-o", tmp_path / "b", *released_copy.options()]
    arguments[arguments.index("--prompt-embeds") + 1] = str(path)
    refused(glesam_export(*arguments), tmp_path / "b", "--prompt-embeds", "float")


def test_version(glesam_export: Run) -> None:
    code, out, _ = glesam_export("--version")
    assert code == 0
    assert out.startswith("glesam-export ")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack the checkpoint of `nano_bundle` into one file without rounding."""
    path = tmp_path_factory.mktemp("packed") / "p.safetensors"
    pack(random_nano(), path, torch.float32)
    return path


def test_verify_takes_a_checkpoint(
    packed: Path, nano_bundle: Path, glesam_export: Run, tmp_path: Path
) -> None:
    code, out, _ = glesam_export("verify", nano_bundle, "--checkpoint", packed)
    assert code == 0
    assert "passed" in out
    other = tmp_path / "other.safetensors"
    pack(random_nano(gamma=1.0), other)
    result = glesam_export("verify", nano_bundle, "--checkpoint", other)
    refused(result, tmp_path / "none", "--gamma 5", "other.safetensors is for 1")


def test_onnx_takes_a_checkpoint_and_says_when_it_is_untrained(
    packed: Path, glesam_export: Run, tmp_path: Path
) -> None:
    """Name a missing image, so that the export stops after it has opened the checkpoint."""
    arguments = ["--checkpoint", packed, "-o", tmp_path / "b", "--image", tmp_path / "nowhere.png"]
    code, _, err = glesam_export("onnx", *arguments)
    assert code == 2
    assert "weights: packed, untrained; the masks will mean nothing" in err
    assert "nowhere.png" in err
    refused(
        glesam_export("onnx", *arguments, "--preset", "sam_vit_b"),
        *(tmp_path / "b", "--preset sam_vit_b", "is for nano"),
    )


def test_a_checkpoint_folder_becomes_a_bundle(
    released: Released,
    glesam_export: Run,
    traced: Traced,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Verification holds the graphs of seed 0 against the weights that were read from the files."""
    monkeypatch.setattr(
        build,
        "export_stage",
        lambda _, *how, **kind: traced.export_stage(random_nano(), *how, **kind),
    )
    weights = WeightFiles(
        released.sam, released.sd, released.lora, released.prompt_embeds, lora_alpha=8.0
    )
    write_checkpoint_json(tmp_path, weights, "nano", "nano", 5.0, 999)
    output = tmp_path / "b"
    code, _, err = glesam_export("onnx", "--checkpoint", tmp_path, "--gamma", 5, "-o", output)
    assert code == 0, err
    assert "untrained" not in err
    manifest = open_bundle(output).manifest
    assert (manifest.model.gamma, manifest.model.timestep, manifest.model.trained) == (5, 999, True)
    roles = [source.role for source in manifest.provenance.sources]
    assert roles == ["sam", "unet", "lora", "prompt_embeds"]


def test_graph_options_reach_the_export(
    glesam_export: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option of the graphs arrives under its own name."""
    seen: list[build.Options] = []

    def build_bundle(_checkpoint: object, _folder: Path, options: build.Options, *_: object):
        seen.append(options)
        return open_bundle().manifest

    monkeypatch.setattr(build, "build_bundle", build_bundle)
    words = "--preset nano --fp16 --batch 3 --auto-islands --image-index --attention-nodes"
    more = ("--allow-parity-failure", "-o", tmp_path / "b")
    for given in ((*words.split(), *more), ("--preset", "nano", *more[1:])):
        code, _, err = glesam_export("onnx", *given)
        assert code == 0, err
    everything, nothing = seen
    assert everything == build.Options("fp16", 3, (), True, True, True, attention_nodes=True)
    assert everything.opset == 23
    assert nothing == build.Options(levels=nothing.levels)
    assert nothing.opset == 18
