"""Files in every format load to the tensors that were written; unsafe ones are refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from glesam_export.checkpoints import diffusion, sam
from glesam_export.checkpoints.files import FileCheckpoint, WeightFiles
from glesam_export.checkpoints.tensors import read
from glesam_export.presets import SAM_PRESETS, SamPreset, unet_preset
from glesam_runtime.errors import CheckpointError

from .conftest import Released, random_nano

Tensors = dict[str, Tensor]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def from_files(released: Released) -> FileCheckpoint:
    weights = WeightFiles(released.sam, released.sd, released.lora, released.prompt_embeds)
    return FileCheckpoint(weights, SAM_PRESETS["nano"], unet_preset("nano"), 5.0, 999)


def same(first: Tensors, second: Tensors) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=0)


def test_files_give_the_model_they_were_written_from(released: Released) -> None:
    ours, theirs = from_files(released), random_nano()
    same(ours.encoder().state_dict(), theirs.encoder().state_dict())
    same(ours.decoder().state_dict(), theirs.decoder().state_dict())
    same(ours.enhancer().state_dict(), theirs.enhancer().state_dict())
    z_l = torch.randn(1, 256, 16, 16)
    torch.testing.assert_close(ours.enhancer()(z_l), theirs.enhancer()(z_l), rtol=1e-5, atol=1e-5)
    roles = [source.role for source in ours.sources()]
    assert roles == ["sam", "unet", "lora", "prompt_embeds"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: {"model": t},
        lambda t: {"state_dict": t, "epoch": 3},
        lambda t: {f"module.{k}": v for k, v in t.items()},
    ],
    ids=["model", "state_dict", "module."],
)
def test_sam_wrappers(
    wrap: Callable[[Tensors], object], released: Released, tmp_path: Path
) -> None:
    tensors = read(released.sam, "--sam")
    torch.save(wrap(tensors), tmp_path / "wrapped.pth")
    same(read(tmp_path / "wrapped.pth", "--sam"), tensors)


def test_sam_as_safetensors_and_as_an_old_pickle(released: Released, tmp_path: Path) -> None:
    tensors = read(released.sam, "--sam")
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "s.safetensors")
    same(read(tmp_path / "s.safetensors", "--sam"), tensors)
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    same(read(tmp_path / "old.pth", "--sam"), tensors)


def test_half_precision_files_become_float32(released: Released, tmp_path: Path) -> None:
    half = {k: v.half() for k, v in read(released.sam, "--sam").items()}
    torch.save(half, tmp_path / "half.pth")
    encoder = from_files(replace(released, sam=tmp_path / "half.pth")).encoder()
    assert {tensor.dtype for tensor in encoder.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(
        encoder.pos_embed, half["image_encoder.pos_embed"].float(), rtol=0, atol=0
    )


@pytest.mark.parametrize("prefix", ["unet.", "", "base_model.model.", "base_model.model.unet."])
@pytest.mark.parametrize(
    ("down", "up"),
    [("lora.down", "lora.up"), ("lora_A", "lora_B"), ("lora_A.default", "lora_B.default")],
)
def test_lora_key_styles(
    prefix: str, down: str, up: str, released: Released, tmp_path: Path
) -> None:
    renamed = {
        prefix + key.removeprefix("unet.").replace("lora.down", down).replace("lora.up", up): value
        for key, value in load_file(released.lora).items()
    }
    path = tmp_path / "renamed.safetensors"
    save_file(renamed, path)
    found, expected = (from_files(replace(released, lora=p))._lora() for p in (path, released.lora))
    assert found.keys() == expected.keys()
    for name, (a, b, alpha) in expected.items():
        assert torch.equal(found[name][0], a)
        assert torch.equal(found[name][1], b)
        assert found[name][2] == alpha == 8.0


def test_lora_alpha_scales_the_update(released: Released, tmp_path: Path) -> None:
    """W + (alpha / r) B A, by hand, on one layer of rank 8 with alpha 4 and one without."""
    tensors = load_file(released.lora)
    layer = "down_blocks.0.resnets.0.conv1"
    tensors[f"unet.{layer}.alpha"] = torch.tensor(4.0)
    save_file(tensors, tmp_path / "alpha.safetensors")
    from glesam_export.fold import merge_lora

    path = tmp_path / "alpha.safetensors"
    enhancer = from_files(replace(released, lora=path)).enhancer()
    merge_lora(enhancer.unet)
    base = load_file(released.sd / "unet" / "diffusion_pytorch_model.safetensors")
    for name, scale in ((layer, 0.5), ("mid_block.resnets.0.conv1", 1.0)):
        a = tensors[f"unet.{name}.lora.down.weight"].double()
        b = tensors[f"unet.{name}.lora.up.weight"].double()[:, :, 0, 0]
        expected = base[f"{name}.weight"] + scale * torch.einsum("or,rikl->oikl", b, a)
        found = enhancer.unet.get_submodule(name).weight
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)


def test_partial_lora(released: Released, tmp_path: Path) -> None:
    tensors = {k: v for k, v in load_file(released.lora).items() if "to_q" in k}
    save_file(tensors, tmp_path / "partial.safetensors")
    factors = from_files(replace(released, lora=tmp_path / "partial.safetensors"))._lora()
    assert len(factors) == len(tensors) // 2
    assert all(name.endswith("to_q") for name in factors)


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with (tmp_path / "bomb.pth").open("wb") as file:
        pickle.dump({"w": Bomb(mark)}, file)
    torch.save({"w": torch.ones(1), "x": Bomb(mark)}, tmp_path / "bomb2.pth")
    for name in ("bomb.pth", "bomb2.pth"):
        with pytest.raises(CheckpointError, match=r"refused.*safetensors"):
            read(tmp_path / name, "--sam")
    assert not mark.exists()


def test_another_presets_checkpoint_names_the_preset_that_fits(
    released: Released, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    smaller = SamPreset("pico", 256, 64, 2, 4, (1,), 8, 64, "nano")
    monkeypatch.setattr(sam, "SAM_PRESETS", {**SAM_PRESETS, "pico": smaller})
    state = read(released.sam, "--sam")
    with pytest.raises(CheckpointError, match="not a pico but a nano; use --preset nano"):
        sam.check(state, smaller, released.sam)
    with pytest.raises(CheckpointError, match="use --preset nano"):
        sam.check(state, SAM_PRESETS["sam_vit_b"], released.sam)
    state.pop("mask_decoder.iou_token.weight")
    with pytest.raises(CheckpointError, match=r"mask_decoder\.iou_token\.weight is missing"):
        sam.check(state, SAM_PRESETS["nano"], released.sam)


def test_a_unet_folder_names_the_preset_that_fits(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    for name in ("sd15", "sd21"):
        config = dict(unet_preset(name).config)
        (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=f"use --unet {name}"):
            diffusion.check_unet(tmp_path, unet_preset("nano"))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_prompt_embeds_as_npy(dtype: type, released: Released, tmp_path: Path) -> None:
    text = load_file(released.prompt_embeds)["c"].numpy().astype(dtype)
    np.save(tmp_path / "c.npy", text)
    found = diffusion.read_text(tmp_path / "c.npy", unet_preset("nano"))
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), text.astype(np.float32))


def test_the_folders_own_text_encoder_is_run_on_nothing(tmp_path: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    (tmp_path / "tokenizer").mkdir()
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3}
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(tmp_path / "tokenizer" / "vocab.json"), str(tmp_path / "tokenizer" / "merges.txt")
    )
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=4,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = CLIPTextModel(config).eval()
    model.save_pretrained(tmp_path / "text_encoder")
    found = diffusion.encode_empty_prompt(tmp_path, unet_preset("nano"))
    # "" is the start token, the end token, and padding with the end token
    expected = model(torch.tensor([[0] + [1] * 76])).last_hidden_state
    torch.testing.assert_close(found, expected)
    with pytest.raises(CheckpointError, match="64 dimensions"):
        diffusion.encode_empty_prompt(tmp_path, unet_preset("sd21"))
    with pytest.raises(CheckpointError, match="--prompt-embeds"):
        diffusion.encode_empty_prompt(tmp_path / "nowhere", unet_preset("nano"))
