"""Every kind of file is identified, and distinguished from similar files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from glesam_export.checkpoints import formats, hugging_face, stable_diffusion
from glesam_export.checkpoints.formats import detect_sam, missing
from glesam_export.checkpoints.packed_file import pack
from glesam_export.checkpoints.tensor_file import TensorFile
from glesam_export.enhancer.reference import build_unet
from glesam_export.families.sam import checkpoint
from glesam_export.families.sam.presets import SAM_PRESETS
from glesam_export.families.sam2 import checkpoint as sam2
from glesam_export.families.sam2.presets import SAM2_PRESETS
from glesam_export.presets import UNET_PRESETS, unet_preset
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import detected, make_checkpoint
from glesam_runtime.bundle import builtin_bundle_path
from glesam_runtime.errors import CheckpointError

from ..released import Released
from .conftest import random_nano, read

Export = Callable[..., tuple[int, str, str]]


def options(files: Released, **changes: object) -> WeightOptions:
    plain = WeightOptions(
        None, None, files.sam, files.sd, [files.lora], files.prompt_embeds, 5.0, 999, None
    )
    plain = replace(plain, lora_alpha=8.0)
    return replace(plain, **changes)


def only_shapes(path: Path, state: dict[str, torch.Tensor]) -> TensorFile:
    """Return a TensorFile that has these shapes but no data."""
    file = TensorFile.__new__(TensorFile)
    file.path, file.where = path, f"--sam {path}"
    file.metadata, file.shapes = {}, state
    return file


def test_each_file_of_a_release(released: Released) -> None:
    found = {
        name: formats.identify(getattr(released, name))
        for name in ("sam", "sd", "lora", "prompt_embeds")
    }
    assert {name: finding.kind for name, finding in found.items()} == {n: n for n in found}
    assert all(finding.fits == ("nano",) for finding in found.values())
    assert "rank 8" in found["lora"].words
    assert found["sd"].lacks == ("text encoder",)
    needs = missing([found["sam"], found["sd"]])
    assert [need.split()[0] for need in needs] == ["--lora", "--prompt-embeds", "--gamma"]
    assert [need.split()[0] for need in missing(found.values())] == ["--lora-alpha", "--gamma"]


def test_shapes_are_the_tensors_shapes(released: Released, tmp_path: Path) -> None:
    whole = read(released.sam, "--sam")
    save_file({k: v.contiguous() for k, v in whole.items()}, tmp_path / "s.safetensors")
    torch.save({f"module.{k}": v for k, v in whole.items()}, tmp_path / "wrapped.pth")
    torch.save(whole, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (released.sam, *tmp_path.iterdir()):
        shapes = TensorFile(path, "--sam").shapes
        assert {k: v.shape for k, v in shapes.items()} == {k: v.shape for k, v in whole.items()}
        assert all(tensor.is_meta for tensor in shapes.values())


@pytest.mark.parametrize("name", ["sam_vit_b", "sam_vit_l", "sam_vit_h"])
def test_a_full_size_sam_is_known_by_its_shapes(name: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        state = {
            f"{prefix}.{key}": tensor
            for prefix, build in checkpoint.PARTS.items()
            for key, tensor in build(SAM_PRESETS[name]).state_dict().items()
        }
    assert detect_sam(only_shapes(tmp_path / "x.pth", state)).name == name


@pytest.mark.parametrize("name", sorted(SAM2_PRESETS))
def test_a_sam2_is_known_by_its_shapes(name: str, tmp_path: Path) -> None:
    """Check that only the video keys distinguish the releases; without them a file fits both."""
    preset = SAM2_PRESETS[name]
    state = sam2.state_dict(*sam2._on_meta(preset))
    released = state | {"memory_attention.x": torch.empty(1)}
    if preset.release == "2.1":
        released["no_obj_embed_spatial"] = torch.empty(1, 64)
    assert detect_sam(only_shapes(tmp_path / "x.pt", released)).name == name
    if "hiera" in name:
        with pytest.raises(CheckpointError, match=r"fits sam2_.* alike; choose one with --preset"):
            detect_sam(only_shapes(tmp_path / "x.pt", state))


@pytest.mark.parametrize("name", sorted(UNET_PRESETS))
def test_a_bare_unet_is_known_by_its_shapes(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = stable_diffusion.on_meta(unet_preset(name), 4).state_dict()
    monkeypatch.setattr(hugging_face, "TensorFile", lambda path, _option: only_shapes(path, state))
    finding = formats.identify(tmp_path / "x.bin")
    assert (finding.kind, finding.fits) == ("unet", (name,))


def test_other_things(released: Released, tmp_path: Path) -> None:
    pack(random_nano(), tmp_path / "packed.safetensors")
    np.save(tmp_path / "c.npy", np.zeros((1, 77, 1024), np.float32))
    np.save(tmp_path / "odd.npy", np.zeros(3, np.float32))
    save_file({"a.weight": torch.zeros(2), "b.weight": torch.zeros(2)}, tmp_path / "o.safetensors")
    one_file = {"model.diffusion_model.x": torch.zeros(1), "first_stage_model.y": torch.zeros(1)}
    save_file(one_file, tmp_path / "ldm.safetensors")
    part = {k: v for k, v in read(released.sam, "").items() if k.startswith("mask_decoder.")}
    torch.save(part, tmp_path / "decoder.pth")
    wide = random_nano().enhancer().unet.state_dict()
    save_file(
        {k.replace(".base_layer", ""): v for k, v in wide.items()}, tmp_path / "w.safetensors"
    )
    (tmp_path / "empty").mkdir()
    expected = {
        builtin_bundle_path(): ("bundle", "glesam-run"),
        tmp_path / "packed.safetensors": ("packed", "gamma 5, timestep 999"),
        tmp_path / "c.npy": ("prompt_embeds", "sd21"),
        tmp_path / "odd.npy": ("other", "[3]"),
        tmp_path / "o.safetensors": ("other", "a.weight, b.weight"),
        tmp_path / "ldm.safetensors": ("other", "diffusers folder"),
        tmp_path / "decoder.pth": ("sam", "without image_encoder and prompt_encoder"),
        tmp_path / "empty": ("other", "manifest.json"),
        released.sd / "unet" / "config.json": ("config", "nano"),
    }
    for path, (kind, words) in expected.items():
        finding = formats.identify(path)
        assert (finding.kind, words in finding.words) == (kind, True), finding


def test_a_lora_of_another_width_says_what_is_amiss(released: Released, tmp_path: Path) -> None:
    tensors = load_file(released.lora)
    tensors["unet.conv_in.lora.down.weight"] = torch.zeros(8, 128, 3, 3)
    save_file(tensors, tmp_path / "l.safetensors")
    finding = formats.identify(tmp_path / "l.safetensors")
    assert (finding.kind, finding.fits) == ("lora", ())
    assert "conv_in has A [8, 128, 3, 3], not [8, 256, 3, 3]" in finding.words


def test_presets_are_detected(released: Released) -> None:
    known = detected(options(released))
    assert (known.preset, known.unet) == ("nano", "nano")
    checkpoint = make_checkpoint(options(released))
    assert (checkpoint.preset.name, checkpoint.unet.name) == ("nano", "nano")


def test_an_sd15_folder_needs_no_unet_option(released: Released, tmp_path: Path) -> None:
    """Check that the U-Net is detected; otherwise the SAM preset's default would be used."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(dict(unet_preset("sd15").config)))
    (tmp_path / "unet" / stable_diffusion.WEIGHT_FILES[0]).touch()
    shutil.copy(released.sd / "scheduler" / "scheduler_config.json", tmp_path / "scheduler")
    assert detected(options(released, sd=tmp_path)).unet == "sd15"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("lora", "LoRA of"), ("prompt_embeds", "text embedding for U-Net nano")],
)
def test_a_file_in_the_wrong_place_is_called_what_it_is(
    wrong: str, words: str, released: Released
) -> None:
    for preset in (None, "nano"):
        with pytest.raises(CheckpointError, match=f"--sam .*not SAM's weights but a {words}"):
            make_checkpoint(options(released, sam=getattr(released, wrong), preset=preset))
    with pytest.raises(CheckpointError, match=r"--lora .*not a LoRA but a SAM, whole: nano"):
        make_checkpoint(options(released, lora=[released.sam]))


def test_a_sam_of_no_preset_names_the_nearest(released: Released, tmp_path: Path) -> None:
    state = read(released.sam, "")
    del state["mask_decoder.iou_token.weight"]
    torch.save(state, tmp_path / "s.pth")
    with pytest.raises(CheckpointError, match=r"next is nano \(mask_decoder\.iou_token\.weight is"):
        make_checkpoint(options(released, sam=tmp_path / "s.pth"))


@pytest.fixture(scope="module")
def enhancer_of_the_folder(released: Released) -> dict[str, Tensor]:
    """Return the tensors of the released enhancer; tests must not change them."""
    state: dict[str, Tensor] = make_checkpoint(options(released)).enhancer().state_dict()
    return state


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_bare_unet_with_its_config_is_the_folders(
    ending: str,
    dtype: torch.dtype,
    released: Released,
    enhancer_of_the_folder: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    state = load_file(released.sd / "unet" / "diffusion_pytorch_model.safetensors")
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    path = tmp_path / f"unet{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    bare = options(released, sd=path, unet_config=released.sd / "unet" / "config.json")
    found = make_checkpoint(bare).enhancer().state_dict()
    for name, tensor in enhancer_of_the_folder.items():
        rounded = tensor if "lora" in name or name == "text" else tensor.to(dtype).float()
        assert torch.equal(found[name], rounded), name
    with pytest.raises(CheckpointError, match=r"attention heads.*--unet-config"):
        make_checkpoint(options(released, sd=path))
    with pytest.raises(CheckpointError, match="leave it out"):
        make_checkpoint(replace(bare, sd=released.sd))


@pytest.mark.parametrize("name", stable_diffusion.WEIGHT_FILES)
def test_a_diffusers_folder_of_each_kind(name: str, released: Released, tmp_path: Path) -> None:
    """Check that fp16 files give the rounded tensors of the fp32 file."""
    sd = Path(shutil.copytree(released.sd, tmp_path / "sd"))
    state = load_file(sd / "unet" / stable_diffusion.WEIGHT_FILES[0])
    (sd / "unet" / stable_diffusion.WEIGHT_FILES[0]).unlink()
    if "fp16" in name:
        state = {k: v.half() for k, v in state.items()}
    path = sd / "unet" / name
    torch.save(state, path) if name.endswith(".bin") else save_file(state, path)
    found = make_checkpoint(options(released, sd=sd)).enhancer().unet.state_dict()
    for key, tensor in build_unet(unet_preset("nano"), 4).state_dict().items():
        if key.startswith(("conv_in", "conv_out")):
            continue
        wide = found.get(key, found.get(".base_layer.".join(key.rsplit(".", 1))))
        assert wide is not None
        assert wide.shape == tensor.shape
        assert torch.equal(wide, state[key].float()), key


@pytest.mark.parametrize("size", ["1MB", "100KB"])
def test_a_unet_in_several_files(size: str, released: Released, tmp_path: Path) -> None:
    """As diffusers itself saves it."""
    sd = Path(shutil.copytree(released.sd, tmp_path / "sd"))
    (sd / "unet" / stable_diffusion.WEIGHT_FILES[0]).unlink()
    unet = UNet2DConditionModel.from_pretrained(released.sd / "unet")
    unet.save_pretrained(sd / "unet", max_shard_size=size)
    shards = sorted((sd / "unet").glob("*.safetensors"))
    assert len(shards) > 1
    assert formats.identify(sd).kind == "sd"
    found, whole = (make_checkpoint(options(released, sd=each)) for each in (sd, released.sd))
    ours, theirs = found.enhancer().state_dict(), whole.enhancer().state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    hashed = [source.file for source in found.sources() if source.role == "unet"]
    assert hashed == [path.name for path in shards]
    shards[0].rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match=rf"--sd .*{shards[0].name}: no such file"):
        make_checkpoint(options(released, sd=sd))
    (tmp_path / "away").rename(shards[0])
    shutil.copy(shards[1], shards[0])
    with pytest.raises(CheckpointError, match="only in the index or only in the files"):
        make_checkpoint(options(released, sd=sd))
    index = sd / "unet" / stable_diffusion.INDEX_FILES[0]
    for raw, words in (
        ("{", "no index of files"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "outside its folder"),
    ):
        index.write_text(raw)
        with pytest.raises(CheckpointError, match=words):
            make_checkpoint(options(released, sd=sd))


def test_a_single_file_of_all_parts_is_called_what_it_is(
    released: Released, tmp_path: Path
) -> None:
    path = tmp_path / "v2-1.safetensors"
    names = ("model.diffusion_model.x", "first_stage_model.y", "cond_stage_model.z")
    save_file({name: torch.zeros(1) for name in names}, path)
    config = released.sd / "unet" / "config.json"
    for given in (config, None):
        with pytest.raises(
            CheckpointError, match=r"--sd .*Stable Diffusion in one file; convert it to a diffusers"
        ):
            make_checkpoint(options(released, sd=path, unet_config=given))


def test_v_prediction_is_refused_with_the_reason(released: Released, tmp_path: Path) -> None:
    sd = Path(shutil.copytree(released.sd, tmp_path / "sd"))
    path = sd / "scheduler" / "scheduler_config.json"
    schedule = json.loads(path.read_text()) | {"prediction_type": "v_prediction"}
    path.write_text(json.dumps(schedule))
    with pytest.raises(CheckpointError, match=r"'v_prediction'.* predicts the noise"):
        make_checkpoint(options(released, sd=sd))
    assert "predicts v_prediction (GleSAM's single step needs" in formats.identify(sd).words


def test_info(glesam_export: Export, released: Released, tmp_path: Path) -> None:
    code, out, _ = glesam_export("info", released.sam, released.lora)
    assert code == 0
    assert f"{released.sam}: SAM, whole: nano" in out
    assert "still needed: --sd FOLDER" in out
    assert "still needed: --gamma" in out
    code, out, _ = glesam_export("info", builtin_bundle_path())
    assert (code, "still" in out) == (0, False)
    code, _, err = glesam_export("info", tmp_path / "nowhere.pth")
    assert code == 2
    assert "no such file" in err
