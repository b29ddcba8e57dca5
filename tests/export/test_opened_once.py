"""An export opens and parses every checkpoint file once; one table line adds a format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from glesam_export import build
from glesam_export.build import Options, build_bundle
from glesam_export.checkpoints import Finding, Format, formats, lora, stable_diffusion, tensor_file
from glesam_export.checkpoints.packed_file import pack
from glesam_export.checkpoints.tensor_file import TensorFile
from glesam_export.stages import graph
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_runtime.manifest import STAGES

from ..released import Released
from .conftest import random_nano


class Stop(Exception):
    """Raised to end an export where tracing would begin."""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each file is opened or parsed, by its name."""
    counts: Counter[str] = Counter()

    def counted(owner: Any, name: str, key: Callable[..., str]) -> None:
        whole = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            counts[key(*args)] += 1
            return whole(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    counted(tensor_file, "safe_open", lambda path, *_: f"parse {Path(path).name}")
    counted(torch, "load", lambda path, *_: f"parse {Path(path).name}")
    counted(tensor_file.os, "open", lambda path, *_: f"open {Path(path).name}")
    counted(lora, "parse", lambda *_: "parse LoRA keys")
    counted(stable_diffusion, "read_json", lambda path, *_: f"json {path.name}")
    return counts


def test_an_export_from_files_opens_each_once(
    released: Released, parsed: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop before tracing, which reads no file itself."""
    paths = {name: getattr(released, name) for name in ("sam", "sd", "prompt_embeds")}
    checkpoint = make_checkpoint(
        WeightOptions(**paths, lora=[released.lora], gamma=5.0, timestep=999, lora_alpha=8.0)
    )

    def untraced(*_: object, **__: object) -> None:
        raise Stop

    quiet = lambda _: nullcontext()  # noqa: E731
    monkeypatch.setattr(build, "export_stage", untraced)
    with pytest.raises(Stop):  # the reference has run on all cases, and the latents were checked
        build_bundle(checkpoint, tmp_path / "b", Options(), quiet, warn=lambda _: None)
    for stage in STAGES:
        graph(checkpoint, stage)
    checkpoint.sources()
    unet = "diffusion_pytorch_model.safetensors"
    names = ("sam.pth", unet, "lora.safetensors", "c.safetensors")
    assert {name: parsed[f"parse {name}"] for name in names} == dict.fromkeys(names, 1)
    assert {name: parsed[f"open {name}"] for name in names} == dict.fromkeys(names, 1)
    assert (parsed["parse LoRA keys"], parsed["json config.json"]) == (1, 1)


def test_a_packed_file_is_opened_once(parsed: Counter[str], tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    pack(random_nano(), path)
    checkpoint = make_checkpoint(WeightOptions(checkpoint=path))
    for stage in STAGES:
        graph(checkpoint, stage)
    assert (parsed["parse p.safetensors"], parsed["open p.safetensors"]) == (1, 1)
    assert parsed["parse LoRA keys"] == 1


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "old.pth"])
def test_what_is_read_may_be_changed(name: str, tmp_path: Path) -> None:
    """Check that a read gives the file's numbers after the tensors of an earlier read changed."""
    state = {"a": torch.arange(6.0).view(2, 3), "b.c": torch.ones(2, dtype=torch.float16)}
    state["b.empty"] = torch.empty(0, 4)
    if name.endswith(".pth"):
        state["a"] = torch.arange(6.0).view(3, 2).T  # strides of its own
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=name != "old.pth")
    else:
        save_file(state, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    file = TensorFile(tmp_path / name)
    first = file.read()
    for tensor in first.values():
        tensor += 1
    second = file.read()
    assert all(torch.equal(second[key], tensor) for key, tensor in state.items())
    assert all(second[key].dtype == tensor.dtype for key, tensor in state.items())
    assert file.read("b.").keys() == {"c", "empty"}
    assert (tmp_path / name).read_bytes() == before


def test_an_enhancer_that_was_changed_leaves_the_next_alone(released: Released) -> None:
    paths = {name: getattr(released, name) for name in ("sam", "sd", "prompt_embeds")}
    checkpoint = make_checkpoint(
        WeightOptions(**paths, lora=[released.lora], gamma=5.0, timestep=999, lora_alpha=8.0)
    )
    first, second = checkpoint.enhancer(), checkpoint.enhancer()
    wanted = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    with torch.no_grad():
        for tensor in first.state_dict().values():
            tensor.zero_()
    third = checkpoint.enhancer().state_dict()
    assert all(torch.equal(third[name], tensor) for name, tensor in wanted.items())


def test_a_format_is_a_line_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that `info` describes a new format and `--checkpoint` opens it."""
    nano = random_nano()
    one_file = Format(
        lambda contents: contents.path.suffix == ".json",
        lambda contents: Finding(contents.path, "checkpoint", "a note of a seed", ("nano",)),
        lambda contents: nano,
    )
    monkeypatch.setattr(formats, "FORMATS", (one_file, *formats.FORMATS))
    note = tmp_path / "note.json"
    note.touch()
    assert formats.identify(note).words == "a note of a seed"
    assert make_checkpoint(WeightOptions(checkpoint=note)) is nano
