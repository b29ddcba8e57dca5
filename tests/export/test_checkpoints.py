"""Files in every format load to the tensors that were written; unsafe ones are refused."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from glesam_export.checkpoints import formats, lora, sam, stable_diffusion
from glesam_export.checkpoints.checkpoint_folder import open_folder, write_checkpoint_json
from glesam_export.checkpoints.separate_files import FileCheckpoint, OpenedFiles, WeightFiles
from glesam_export.enhancer.reference import LoraFactors, build_unet
from glesam_export.families.sam import SamFamily
from glesam_export.families.sam.presets import SAM_PRESETS, SamPreset
from glesam_export.presets import unet_preset
from glesam_runtime.errors import CheckpointError

from ..released import Released
from .conftest import random_nano, read

Tensors = dict[str, Tensor]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def from_files(released: Released) -> FileCheckpoint:
    weights = WeightFiles(
        released.sam, released.sd, released.lora, released.prompt_embeds, lora_alpha=8.0
    )
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


TRAINING = {
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(2), "step": torch.tensor(1.0)}}},
    "rng_state": torch.zeros(8, dtype=torch.uint8),
    "loss": torch.tensor(0.1),
    "epoch": 3,
}
"""What lies beside a state dict in a training state."""


@pytest.mark.parametrize("ending", [".pth", "old.pth", ".safetensors"])
@pytest.mark.parametrize(
    "prefix",
    [
        *("_orig_mod.", "model.", "sam.", "module.model.", "model._orig_mod.", "net.sam_model."),
        *("module._orig_mod.", "module."),
    ],
)
def test_prefixes_before_a_sam(
    prefix: str, ending: str, released: Released, tmp_path: Path
) -> None:
    tensors = read(released.sam, "--sam")
    path = tmp_path / f"s{ending}"
    prefixed = {prefix + name: tensor.contiguous() for name, tensor in tensors.items()}
    if ending == ".safetensors":
        save_file(prefixed, path)
    else:
        torch.save(prefixed, path, _use_new_zipfile_serialization=ending != "old.pth")
    same(OpenedFiles(path, None, None).sam.read(), tensors)
    assert formats.identify(path).words == "SAM, whole: nano"


@pytest.mark.parametrize(
    "wrap",
    [
        *(
            lambda t, k=key: {k: t, **TRAINING}
            for key in ("model_state_dict", "net", "params", "ema", "weights", "sam")
        ),
        lambda t: {"state": {"nested": {"deeply": t}}},
        lambda t: {"model": t, "ema": t},
        lambda t: {"model": {"state_dict": t}},
        lambda t: {"state_dict": {f"sam.{k}": v for k, v in t.items()}, **TRAINING},
        lambda t: {k.replace("image_encoder.", "image_encoder._orig_mod."): t[k] for k in t},
        lambda t: {k.replace("mask_decoder.", "mask_decoder.module."): t[k] for k in t},
    ],
)
def test_a_sam_in_any_training_state_is_the_sam(
    wrap: Callable[[Tensors], object], released: Released, tmp_path: Path
) -> None:
    tensors = read(released.sam, "--sam")
    torch.save(wrap(tensors), tmp_path / "s.pth")
    found = from_files(replace(released, sam=tmp_path / "s.pth"))
    same(found.decoder().state_dict(), random_nano().decoder().state_dict())
    same(found.encoder().state_dict(), random_nano().encoder().state_dict())


@pytest.mark.parametrize("prefix", ["sam2.", "_orig_mod.", "model._orig_mod."])
def test_prefixes_before_a_sam2(prefix: str, released2: Released, tmp_path: Path) -> None:
    tensors = read(released2.sam, "--sam")
    torch.save({"net": {prefix + k: v for k, v in tensors.items()}}, tmp_path / "s.pt")
    same(OpenedFiles(tmp_path / "s.pt", None, None).sam.read(), tensors)


DECODER_NAMES: dict[str, Callable[[str], str | None]] = {
    "both parts": lambda n: None if n.startswith("image_encoder.") else n,
    "mask decoder": lambda n: n if n.startswith("mask_decoder.") else None,
    "bare names": lambda n: (
        n.removeprefix("mask_decoder.") if n.startswith("mask_decoder.") else None
    ),
    "with a prefix": lambda n: f"module.sam.{n}" if n.startswith("mask_decoder.") else None,
    "mask tokens": lambda n: n if n == "mask_decoder.mask_tokens.weight" else None,
}


@pytest.mark.parametrize("kind", DECODER_NAMES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_decoder_is_laid_over_a_whole_sam(
    kind: str, wrapped: bool, released: Released, tmp_path: Path
) -> None:
    """The tensors in the file are the other SAM's; all others stay."""
    whole = read(released.sam, "--sam")
    decoder, expected = {}, dict(whole)
    for name, tensor in whole.items():
        if (renamed := DECODER_NAMES[kind](name)) is not None:
            decoder[renamed] = expected[name] = tensor + 1
    path = tmp_path / "decoder.pth"
    torch.save({"model_state_dict": decoder, "epoch": 1} if wrapped else decoder, path)
    files = (released.sam, released.sd, released.lora, released.prompt_embeds)
    weights = WeightFiles(*files, lora_alpha=8.0, decoder=path)
    found = FileCheckpoint(weights, SAM_PRESETS["nano"], unet_preset("nano"), 5.0, 999)
    family = SamFamily()
    same(dict(family.state_dict(found.encoder(), found.decoder())), expected)
    assert [s.role for s in found.sources()][:2] == ["sam", "decoder"]
    write_checkpoint_json(tmp_path, weights, "nano", "nano", 5.0, 999)
    again = open_folder(tmp_path)
    same(again.decoder().state_dict(), found.decoder().state_dict())


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"mask_decoder.other.weight": torch.ones(2)}, "mask_decoder.other.weight is unknown"),
        ({"mask_decoder.iou_token.weight": torch.ones(2)}, r"iou_token.weight is \[2\], not"),
        ({"image_encoder.pos_embed": torch.ones(2)}, "holds an image encoder; pass a whole SAM"),
        ({"mask_decoder.iou_token.weight": torch.full((1, 256), torch.nan)}, "NaN"),
    ],
)
def test_a_decoder_that_does_not_fit(
    state: Tensors, words: str, released: Released, tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "d.pth")
    files = (released.sam, released.sd, released.lora, released.prompt_embeds)
    weights = WeightFiles(*files, lora_alpha=8.0, decoder=tmp_path / "d.pth")
    with pytest.raises(CheckpointError, match=rf"--decoder .*d\.pth: .*{words}"):
        FileCheckpoint(weights, SAM_PRESETS["nano"], unet_preset("nano"), 5.0, 999)


def test_files_whose_state_dict_cannot_be_told(released: Released, tmp_path: Path) -> None:
    tensors = read(released.sam, "--sam")
    path = tmp_path / "s.pth"
    torch.save({"net": tensors, "ema": tensors}, path)
    with pytest.raises(CheckpointError, match=r"several state dicts \(net, ema\); save the one"):
        read(path, "--sam")
    torch.save({"epoch": 3, "args": {"lr": 0.1}}, path)
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        read(path, "--sam")
    torch.save({"sam." + k: v for k, v in tensors.items()} | {"head.weight": torch.ones(1)}, path)
    with pytest.raises(CheckpointError):
        from_files(replace(released, sam=path))
    doubled = tensors | {"_orig_mod." + k: v for k, v in tensors.items()}
    torch.save(doubled, path)
    with pytest.raises(CheckpointError, match="two tensors have the same name"):
        from_files(replace(released, sam=path))


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


@pytest.fixture(scope="module")
def adapters(released: Released) -> dict[str, LoraFactors]:
    """Return the adapters of the released files; tests must not change them."""
    return from_files(released).lora_factors


@pytest.mark.parametrize("prefix", ["unet.", "", "base_model.model.", "base_model.model.unet."])
@pytest.mark.parametrize(
    ("down", "up"),
    [("lora.down", "lora.up"), ("lora_A", "lora_B"), ("lora_A.default", "lora_B.default")],
)
def test_lora_key_styles(
    prefix: str,
    down: str,
    up: str,
    released: Released,
    adapters: dict[str, LoraFactors],
    tmp_path: Path,
) -> None:
    renamed = {
        prefix + key.removeprefix("unet.").replace("lora.down", down).replace("lora.up", up): value
        for key, value in load_file(released.lora).items()
    }
    path = tmp_path / "renamed.safetensors"
    save_file(renamed, path)
    found = from_files(replace(released, lora=path)).lora_factors
    assert found.keys() == adapters.keys()
    for name, (a, b, alpha) in adapters.items():
        assert torch.equal(found[name][0], a)
        assert torch.equal(found[name][1], b)
        assert found[name][2] == alpha == 8.0


def test_lora_alpha_scales_the_update(released: Released, tmp_path: Path) -> None:
    """Compute W + (alpha / r) B A by hand for a layer of rank 8, with alpha 4 and without alpha."""
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
    factors = from_files(replace(released, lora=tmp_path / "partial.safetensors")).lora_factors
    assert len(factors) == len(tensors) // 2
    assert all(name.endswith("to_q") for name in factors)


def damaged(raw: bytes, seed: int) -> bytes:
    """Return the bytes truncated, or with one byte changed."""
    rng = np.random.default_rng(seed)
    place = int(rng.integers(len(raw)))
    if seed % 2:
        return raw[:place]
    return raw[:place] + bytes([raw[place] ^ int(rng.integers(1, 256))]) + raw[place + 1 :]


@pytest.mark.parametrize("kind", ["zip", "old pickle", "safetensors"])
def test_a_damaged_file_is_one_error_whatever_the_damage(kind: str, tmp_path: Path) -> None:
    tensors = {f"a.{i}": torch.ones(4, 4) for i in range(5)}
    path = tmp_path / ("t.safetensors" if kind == "safetensors" else "t.pth")
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    raw = path.read_bytes()
    refused = 0
    for seed in range(300):
        path.write_bytes(damaged(raw, seed))
        try:
            read(path, "--sam")
        except CheckpointError:  # and nothing else
            refused += 1
    assert refused > 145, "half of them are cut off"


@pytest.mark.parametrize("raw", [b"<!DOCTYPE html>", b"version https://git-lfs", b"\x89PNG\r\n"])
def test_what_is_no_checkpoint_is_not_called_dangerous(raw: bytes, tmp_path: Path) -> None:
    """Try a web page, a Git LFS pointer and a picture, which cannot run code."""
    (tmp_path / "x.pth").write_bytes(raw)
    with pytest.raises(CheckpointError, match="fetch the file again") as caught:
        read(tmp_path / "x.pth", "--sam")
    assert "asks to run" not in str(caught.value)


class Bomb:
    """An object that creates a file when it is unpickled."""

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
        with pytest.raises(CheckpointError, match=r"refused.*safetensors") as caught:
            read(tmp_path / name, "--sam")
        for advice in ("weights_only", "trust", "\x1b"):  # torch's advice to run it anyway
            assert advice not in str(caught.value)
    assert "asks to run posix.system" in str(caught.value)
    assert not mark.exists()
    with (tmp_path / "bomb.pth").open("rb") as file:
        pickle.load(file)  # noqa: S301
    assert mark.exists(), "the bomb is a live one"


def test_another_presets_checkpoint_names_the_preset_that_fits(
    released: Released, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    smaller = SamPreset("pico", 256, 64, 2, 4, (1,), 8, 64, "nano")
    known = MappingProxyType({**SAM_PRESETS, "pico": smaller})
    monkeypatch.setattr(SamFamily, "presets", known)
    state = read(released.sam, "--sam")
    with pytest.raises(CheckpointError, match="not a pico but a nano; use preset nano"):
        sam.check(state, smaller, str(released.sam))
    with pytest.raises(CheckpointError, match="use preset nano"):
        sam.check(state, SAM_PRESETS["sam_vit_b"], str(released.sam))
    state.pop("mask_decoder.iou_token.weight")
    with pytest.raises(CheckpointError, match=r"mask_decoder\.iou_token\.weight is missing"):
        sam.check(state, SAM_PRESETS["nano"], str(released.sam))


def test_a_unet_folder_names_the_preset_that_fits(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    for name in ("sd15", "sd21"):
        config = dict(unet_preset(name).config)
        (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=f"use U-Net {name}"):
            stable_diffusion.Base(tmp_path).preset(unet_preset("nano"))


def with_unet_tensors(sd: Path, folder: Path, change: Callable[[Tensors], object]) -> Path:
    """Copy a diffusers folder and change the tensors of its U-Net."""
    shutil.copytree(sd, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return folder


@pytest.mark.parametrize(
    "key", ["conv_in.weight", "conv_out.bias", "mid_block.resnets.0.norm1.bias"]
)
def test_a_unet_that_lacks_a_tensor(key: str, released: Released, tmp_path: Path) -> None:
    sd = with_unet_tensors(released.sd, tmp_path / "sd", lambda tensors: tensors.pop(key))
    with pytest.raises(CheckpointError, match=rf"--sd .*{re.escape(key)} is missing"):
        from_files(replace(released, sd=sd))


def poisoned(tensors: Tensors, key: str, value: float) -> Tensors:
    tensors[key].view(-1)[-1] = value
    return tensors


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_and_named(
    value: float, released: Released, tmp_path: Path
) -> None:
    key = "mask_decoder.iou_token.weight"
    torch.save(poisoned(read(released.sam, "--sam"), key, value), tmp_path / "s.pth")
    with pytest.raises(CheckpointError, match=rf"--sam .*{key} holds NaN or infinity"):
        from_files(replace(released, sam=tmp_path / "s.pth"))
    key = "unet.conv_in.lora.up.weight"
    save_file(poisoned(load_file(released.lora), key, value), tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match=rf"--lora .*{key} holds NaN or infinity"):
        from_files(replace(released, lora=tmp_path / "l.safetensors"))
    key = "mid_block.resnets.0.norm1.bias"
    sd = with_unet_tensors(released.sd, tmp_path / "sd", lambda t: poisoned(t, key, value))
    with pytest.raises(CheckpointError, match=rf"--sd .*{key} holds NaN or infinity"):
        from_files(replace(released, sd=sd))


@pytest.mark.parametrize(
    "kind",
    [torch.Tensor.to_sparse, lambda t: t.to("meta"), lambda t: t * 1j],
    ids=["sparse", "meta", "complex"],
)
def test_tensors_of_a_strange_kind_are_refused(
    kind: Callable[[Tensor], Tensor], released: Released, tmp_path: Path
) -> None:
    tensors = read(released.sam, "--sam")
    tensors["image_encoder.pos_embed"] = kind(tensors["image_encoder.pos_embed"])
    torch.save(tensors, tmp_path / "strange.pth")
    with pytest.raises(CheckpointError, match="pos_embed is not a plain tensor"):
        from_files(replace(released, sam=tmp_path / "strange.pth"))


@pytest.mark.parametrize(
    ("entry", "value"),
    [("act_fn", "gelu"), ("flip_sin_to_cos", False), ("norm_eps", 1e-6), ("class_embed_type", "x")],
)
def test_a_unet_config_that_computes_something_else_is_refused(
    entry: str, value: object, released: Released, tmp_path: Path
) -> None:
    """Check entries that do not change the tensors, so only the configuration shows them."""
    sd = Path(shutil.copytree(released.sd, tmp_path / "sd"))
    path = sd / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {entry: value}))
    with pytest.raises(CheckpointError, match=rf"{entry} is .*no preset fits"):
        from_files(replace(released, sd=sd))


@pytest.mark.parametrize("name", ["sd15", "sd21"])
def test_a_unet_config_as_published_fits(name: str, tmp_path: Path) -> None:
    """Use an old configuration, which lacks some defaults and has entries without effect."""
    config = {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.8.0"}
    config |= dict(unet_preset(name).config)
    config |= {"act_fn": "silu", "center_input_sample": False, "downsample_padding": 1}
    config |= {"flip_sin_to_cos": True, "freq_shift": 0, "mid_block_scale_factor": 1}
    config |= {"norm_eps": 1e-05, "norm_num_groups": 32, "upcast_attention": True, "unknown": 1}
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    base = stable_diffusion.Base(tmp_path)
    assert base.preset(unet_preset(name)) is unet_preset(name)
    with pytest.raises(CheckpointError, match=r"unet/ holds none of"):  # only weights are lacking
        base.weights  # noqa: B018


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta_schedule": "wavy"}, r"no noise schedule.*wavy"),
        ({"num_train_timesteps": "many"}, "no noise schedule"),
        ({"num_train_timesteps": 500}, r"--timestep 999: outside 0\.\.499"),
        ({"rescale_betas_zero_snr": True}, r"alphas_cumprod\[999\] is 0"),
    ],
)
def test_a_schedule_that_cannot_be_used(change: dict[str, object], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        stable_diffusion.alpha_bar(
            999, {**stable_diffusion.SCHEDULE, **change}, "scheduler_config.json"
        )
    assert "\n" not in str(caught.value)


def saved(scheduler: Any) -> dict[str, object]:
    """The scheduler_config.json that diffusers writes."""
    config: dict[str, object] = json.loads(scheduler.to_json_string())
    return config


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "this scheduler lacks beta_start, beta_end, beta_schedule, num_train_timesteps"),
        ({"_class_name": "DDPMScheduler"}, "DDPMScheduler lacks beta_start, beta_end"),
        ({"prediction_type": "epsilon", "num_train_timesteps": 1000}, "lacks beta_start, beta_end"),
        ({"beta_start": 0.00085, "beta_end": 0.012}, "lacks beta_schedule, num_train_timesteps"),
        ({**stable_diffusion.SCHEDULE, "beta_end": None}, "lacks beta_end, so"),
        (saved(FlowMatchEulerDiscreteScheduler()), "FlowMatchEuler.* is for flow matching"),
        (saved(FlowMatchHeunDiscreteScheduler()), "FlowMatchHeun.* is for flow matching"),
        (saved(EDMEulerScheduler()), "EDMEulerScheduler lacks beta_start"),
        (
            saved(DPMSolverMultistepScheduler(use_flow_sigmas=True)),
            "DPMSolverMultistepScheduler is for flow matching",
        ),
        (saved(CogVideoXDDIMScheduler()), "CogVideoXDDIMScheduler shifts its betas"),
    ],
)
def test_a_config_without_betas_is_refused(
    config: dict[str, object], words: str, released: Released, tmp_path: Path
) -> None:
    """Diffusers would take its own defaults, whose abar_T is 4.0e-5 instead of 4.66e-3."""
    sd = Path(shutil.copytree(released.sd, tmp_path / "sd"))
    (sd / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"scheduler_config\.json: .*{words}") as caught:
        from_files(replace(released, sd=sd))
    assert "\n" not in str(caught.value)
    assert "noise schedule cannot be used" in formats.identify(sd).words


@pytest.mark.parametrize("timestep", [1, 999])
@pytest.mark.parametrize(
    "kind",
    [
        *(DDPMScheduler, DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler, LCMScheduler),
        *(EulerAncestralDiscreteScheduler, LMSDiscreteScheduler, UniPCMultistepScheduler),
        *(DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, HeunDiscreteScheduler),
    ],
)
def test_every_scheduler_of_discrete_betas_gives_its_own_alphas(kind: Any, timestep: int) -> None:
    """Each class of diffusers computes its alphas itself."""
    for change in ({}, {"trained_betas": [0.001 + i * 1e-5 for i in range(1000)]}):
        scheduler = kind.from_config({**stable_diffusion.SCHEDULE, **change})
        found = stable_diffusion.alpha_bar(timestep, saved(scheduler), "test")
        assert found == pytest.approx(float(scheduler.alphas_cumprod[timestep]), rel=1e-6)


def test_the_folders_own_schedule_is_taken() -> None:
    """Compute linear betas with numpy; entries for other schedulers are ignored."""
    config = {**stable_diffusion.SCHEDULE, "beta_schedule": "linear", "skip_prk_steps": True}
    expected = np.cumprod(1 - np.linspace(0.00085, 0.012, 1000))[700]
    assert stable_diffusion.alpha_bar(700, config, "test") == pytest.approx(expected, rel=1e-5)


A, B = "unet.conv_in.lora.down.weight", "unet.conv_in.lora.up.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({A: torch.ones(())}, r"conv_in has A \[\]"),
        ({A: torch.ones(0, 256, 3, 3), B: torch.ones(32, 0, 1, 1)}, "of rank 0"),
        ({A: torch.ones(8, 4, 3, 3)}, r"A \[8, 4, 3, 3\], not \[8, 256, 3, 3\]"),
        ({B: torch.ones(32, 4, 1, 1)}, r"B \[32, 4, 1, 1\], not \[32, 8, 1, 1\]"),
        ({"conv_in.lora_A.weight": torch.ones(8, 256, 3, 3)}, "occurs twice"),
        ({"unet.conv_in.alpha": torch.tensor(float("nan"))}, "alpha holds NaN"),
        ({"unet.time_embedding.linear_1.alpha": torch.tensor(8.0)}, "lacks one of its two"),
        ({"unet.conv_norm_out.alpha": torch.tensor(8.0)}, "not a layer"),
        ({"unet.conv_in.dora_scale": torch.ones(32)}, "dora_scale belongs to DoRA"),
    ],
    ids=["scalar", "rank 0", "A", "B", "two styles", "NaN alpha", "alpha alone", "norm", "DoRA"],
)
def test_lora_files_that_do_not_fit(
    change: Tensors, words: str, released: Released, tmp_path: Path
) -> None:
    save_file(load_file(released.lora) | change, tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match=rf"--lora .*{words}"):
        from_files(replace(released, lora=tmp_path / "l.safetensors"))


def test_misfits_are_named_three_at_a_time() -> None:
    with torch.device("meta"):
        unet = build_unet(unet_preset("nano"))
    state = {f"unet.nowhere{i}.lora_A.weight": torch.ones(2, 2) for i in range(5)}
    with pytest.raises(CheckpointError, match=r"nowhere0.*nowhere1.*nowhere2.* and 2 more$"):
        lora.parse(state, unet, "l.safetensors")
