"""`--decoder` replaces the tensors of a SAM's or SAM 2's decoder, and refuses other files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from glesam_export.checkpoints.separate_files import FileCheckpoint

from ..released import Released
from .conftest import read

Tensors = dict[str, Tensor]
Run = Callable[..., tuple[int, str, str]]

PREFIX = {"sam": "", "sam2": "sam_"}
"""What Meta's names of the decoder's parts begin with."""


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=["sam", "sam2"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def files(family: str, request: pytest.FixtureRequest) -> Released:
    """Return the files of nano or nano2."""
    found: Released = request.getfixturevalue("released" if family == "sam" else "released2")
    return found


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[FileCheckpoint]:
    """Record the checkpoints that a command opens."""
    found: list[FileCheckpoint] = []
    original = FileCheckpoint.__init__

    def recording(self: FileCheckpoint, *arguments: Any) -> None:
        original(self, *arguments)
        found.append(self)

    monkeypatch.setattr(FileCheckpoint, "__init__", recording)
    return found


def onnx(run: Run, files: Released, decoder: Path, folder: Path) -> tuple[int, str]:
    """Run the export; it stops at a missing image after it has opened the weights."""
    nowhere = ("--image", folder / "nowhere.png", "-o", folder / "bundle")
    code, _, err = run("onnx", *files.options(), "--decoder", decoder, *nowhere)
    assert not (folder / "bundle").exists()
    return code, err


NAMES: dict[str, Callable[[str, str], str]] = {
    "Meta's": lambda name, part: name,
    "parallel": lambda name, part: f"module.{name}",
    "compiled": lambda name, part: f"_orig_mod.{name}",
    "bare": lambda name, part: name.removeprefix(part),
}


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("kind", NAMES)
def test_the_decoder_of_the_file_is_exported(
    kind: str,
    nested: bool,
    family: str,
    files: Released,
    opened: list[FileCheckpoint],
    glesam_export: Run,
    tmp_path: Path,
) -> None:
    part = f"{PREFIX[family]}mask_decoder."
    whole = read(files.sam, "--sam")
    expected = {n: t + 1 for n, t in whole.items() if n.startswith(part)}
    assert len(expected) > 100
    given: dict[str, Any] = {NAMES[kind](n, part): t for n, t in expected.items()}
    torch.save({"net": given, "epoch": 2} if nested else given, tmp_path / "d.pth")
    _, err = onnx(glesam_export, files, tmp_path / "d.pth", tmp_path)
    assert "nowhere.png" in err
    (checkpoint,) = opened
    state = checkpoint.state("sam").tensors
    assert state.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(state[name], expected.get(name, tensor)), name
    assert [s.role for s in checkpoint.sources()][:2] == ["sam", "decoder"]


def test_a_whole_sam_is_no_decoder(
    family: str, files: Released, glesam_export: Run, tmp_path: Path
) -> None:
    code, err = onnx(glesam_export, files, files.sam, tmp_path)
    assert code == 2
    assert f"--decoder {files.sam}: holds an image encoder; pass a whole SAM by --sam alone" in err
    assert err.count("\n") == 1


def test_a_decoder_of_the_other_family(
    family: str,
    files: Released,
    glesam_export: Run,
    released: Released,
    released2: Released,
    tmp_path: Path,
) -> None:
    other, prefix = (released2, "sam_") if family == "sam" else (released, "")
    parts = (f"{prefix}mask_decoder.", f"{prefix}prompt_encoder.")
    tensors = {n: t for n, t in read(other.sam, "--sam").items() if n.startswith(parts)}
    save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / "d.safetensors")
    code, err = onnx(glesam_export, files, tmp_path / "d.safetensors", tmp_path)
    titles = ("SAM 2", "SAM") if family == "sam" else ("SAM", "SAM 2")
    assert code == 2
    assert f"the names of a {titles[0]}, but --sam is a {titles[1]}; pass a decoder of" in err
    assert err.count("\n") == 1
    bare = {n.removeprefix(parts[0]): t for n, t in tensors.items() if n.startswith(parts[0])}
    torch.save(bare, tmp_path / "bare.pth")
    code, err = onnx(glesam_export, files, tmp_path / "bare.pth", tmp_path)
    assert code == 2
    assert "does not fit the SAM's decoder: " in err
    assert " is unknown" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iou_token.weight": torch.ones(2, 256)}, "iou_token.weight is [2, 256], not [1, 256]"),
        ({"adapter.weight": torch.ones(1)}, "adapter.weight is unknown"),
        ({"iou_token.weight": torch.full((1, 256), torch.inf)}, "holds NaN or infinity"),
        ({"conv_in.lora.up.weight": torch.ones(2, 2)}, "conv_in.lora.up.weight is unknown"),
        ({}, "holds no tensors"),
    ],
)
def test_a_file_that_does_not_fit(
    change: Tensors, words: str, family: str, files: Released, glesam_export: Run, tmp_path: Path
) -> None:
    save_file(change, tmp_path / "d.safetensors")
    code, err = onnx(glesam_export, files, tmp_path / "d.safetensors", tmp_path)
    assert code == 2
    assert f"--decoder {tmp_path / 'd.safetensors'}" in err
    assert words in err
    assert err.count("\n") == 1
