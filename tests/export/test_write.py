"""The readers read what the writers write, and each file is complete or absent."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file

from glesam_export.checkpoints import write
from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles
from glesam_export.enhancer.reference import ADAPTER, Enhancer
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.errors import InputError

from ..released import Released
from .conftest import random_nano


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def enhancer() -> Enhancer:
    """Return an enhancer of another seed than the released files; tests may change it."""
    return random_nano(seed=1).enhancer()


def from_files(released: Released) -> FileCheckpoint:
    weights = WeightFiles(
        released.sam, released.sd, released.lora, released.prompt_embeds, lora_alpha=8.0
    )
    return FileCheckpoint(weights, sam_preset("nano"), unet_preset("nano"), 5.0, 999)


def same(first: torch.nn.Module, second: torch.nn.Module) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_sam_is_read_again(released: Released, tmp_path: Path) -> None:
    written = random_nano(seed=1)
    path = tmp_path / "sam.pth"
    write.save_sam(path, written.preset, written.encoder(), written.decoder())
    found = from_files(replace(released, sam=path))
    same(found.encoder(), written.encoder())
    same(found.decoder(), written.decoder())
    prefixes = {key.split(".")[0] for key in torch.load(path, weights_only=True)}
    assert prefixes == {"image_encoder", "prompt_encoder", "mask_decoder"}


def test_lora_is_read_again(released: Released, enhancer: Enhancer, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_lora_weights.safetensors"
    write.save_lora(path, enhancer.unet)
    state = load_file(path)
    assert "unet.mid_block.attentions.0.proj_in.lora_A.weight" in state
    assert not [key for key in state if key.endswith("alpha")], "the header says it"
    found = from_files(replace(released, lora=path)).lora_factors
    expected = write.adapters(enhancer.unet)
    assert found.keys() == expected.keys()
    for name, (a, b, alpha) in expected.items():
        assert torch.equal(found[name][0], a)
        assert torch.equal(found[name][1], b)
        assert found[name][2] == alpha == 8.0


def test_an_alpha_that_is_not_the_rank_is_written(released: Released, tmp_path: Path) -> None:
    state = load_file(released.lora)
    state["unet.conv_in.alpha"] = torch.tensor(3.0)
    write.save_tensors(tmp_path / "first.safetensors", state)
    unet = from_files(replace(released, lora=tmp_path / "first.safetensors")).enhancer().unet
    write.save_lora(tmp_path / "second.safetensors", unet)
    with safe_open(tmp_path / "second.safetensors", "pt") as file:
        said = json.loads(file.metadata()["lora_adapter_metadata"])
    assert (said["unet.lora_alpha"], said["unet.r"]) == (8.0, 8)
    assert said["unet.alpha_pattern"] == {"^conv_in": 3.0}
    weights = WeightFiles(
        released.sam, released.sd, tmp_path / "second.safetensors", released.prompt_embeds
    )
    again = FileCheckpoint(weights, sam_preset("nano"), unet_preset("nano"), 5.0, 999)
    alphas = {name: alpha for name, (_, _, alpha) in again.lora_factors.items()}
    assert alphas.pop("conv_in") == 3.0
    assert set(alphas.values()) == {8.0}


def test_text_is_read_again(released: Released, enhancer: Enhancer, tmp_path: Path) -> None:
    path = tmp_path / "prompt_embeds.safetensors"
    write.save_prompt_embeds(path, enhancer.text)
    assert torch.equal(from_files(replace(released, prompt_embeds=path)).text, enhancer.text)


def test_the_base_is_the_unet_that_was_widened(released: Released) -> None:
    base = write.base_state(random_nano().enhancer().unet)
    expected = load_file(released.sd / "unet" / "diffusion_pytorch_model.safetensors")
    assert base.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in base.items())


@pytest.mark.parametrize("layer", ["conv_in", "conv_out"])
def test_a_head_or_tail_that_was_trained_has_no_base(layer: str, enhancer: Enhancer) -> None:
    enhancer.unet.get_submodule(layer).base_layer.weight[0, 0, 0, 0] += 1
    with pytest.raises(ValueError, match=rf"{layer}\.weight is not 4 channels repeated"):
        write.base_state(enhancer.unet)


def test_adapters_that_are_not_there_or_merged(enhancer: Enhancer, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    with pytest.raises(ValueError, match="no adapters"):
        write.save_lora(path, torch.nn.Linear(2, 2))
    merged = copy.deepcopy(enhancer.unet)
    for layer in merged.modules():
        if isinstance(layer, LoraLayer):
            layer.merge(adapter_names=[ADAPTER])
    with pytest.raises(ValueError, match=r"merged into its layer; unmerge"):
        write.save_lora(path, merged)
    assert list(tmp_path.iterdir()) == []


WRITERS: dict[str, Callable[[Path], None]] = {
    "sam": lambda path: write.save_sam(
        path, random_nano().preset, random_nano().encoder(), random_nano().decoder()
    ),
    "text": lambda path: write.save_prompt_embeds(path, torch.ones(1, 77, 64)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_place_that_cannot_be_written(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its folder does not exist"):
        WRITERS[kind](tmp_path / "nowhere" / "x")
    with pytest.raises(InputError, match="is a folder"):
        WRITERS[kind](tmp_path)


@pytest.mark.parametrize("error", [RuntimeError("PytorchStreamWriter failed"), KeyboardInterrupt()])
def test_what_is_cut_short_leaves_the_old_file(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: object, partial: Path) -> None:
        partial.write_bytes(b"half of it")
        raise error

    path = tmp_path / "sam.pth"
    path.write_bytes(b"old")
    monkeypatch.setattr(write.torch, "save", broken)
    with pytest.raises((InputError, KeyboardInterrupt)) as caught:
        WRITERS["sam"](path)
    if isinstance(error, RuntimeError):
        assert str(caught.value) == f"{path}: cannot be written (PytorchStreamWriter failed)"
    assert [file.name for file in tmp_path.iterdir()] == ["sam.pth"]
    assert path.read_bytes() == b"old"


def test_files_are_as_open_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    for kind, save in WRITERS.items():
        save(tmp_path / kind)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
