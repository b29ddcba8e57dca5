"""SAM 2's files are read without the tensors that only video needs; others are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glesam_export.checkpoints import sam, write
from glesam_export.checkpoints.packed_file import PackedCheckpoint, pack
from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles
from glesam_export.families import presets
from glesam_export.families.sam2 import checkpoint as sam2
from glesam_export.families.sam2.presets import SAM2_PRESETS
from glesam_export.families.sam2.reference import NumbersOnCpu
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.errors import CheckpointError

from ..released import Released
from .conftest import random_nano, random_nano2, read

Tensors = dict[str, Tensor]

VIDEO = {
    "memory_attention.layers.0.linear1.weight": torch.zeros(4, 4),
    "memory_encoder.out_proj.weight": torch.full((2, 2), torch.nan),
    "maskmem_tpos_enc": torch.zeros(7, 1, 1, 64),
    "no_mem_pos_enc": torch.zeros(1, 1, 256),
    "no_obj_ptr": torch.zeros(1, 256),
    "no_obj_embed_spatial": torch.zeros(1, 64),
    "mask_downsample.weight": torch.zeros(1, 1, 4, 4),
    "obj_ptr_proj.layers.0.weight": torch.zeros(256, 256),
    "obj_ptr_tpos_proj.weight": torch.zeros(64, 256),
}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def same(first: Tensors, second: Tensors) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=0)


def of_nano2() -> Tensors:
    checkpoint = random_nano2()
    return write.sam_state(checkpoint.preset, checkpoint.encoder(), checkpoint.decoder())


def as_run(decoder: Tensors) -> Tensors:
    """Return the tensors that the decoder runs. The encoder runs the two projections."""
    return {name: tensor for name, tensor in decoder.items() if ".conv_s" not in name}


def meta_state(name: str) -> Tensors:
    """Return the tensors of Meta's file of this preset, on the meta device."""
    from sam2.build_sam import build_sam2

    made = SAM2_PRESETS[name]
    with torch.device("meta"), NumbersOnCpu():
        model = build_sam2(f"configs/sam{made.release}/{name}.yaml", device="meta")
    state: Tensors = model.state_dict()
    return state


def test_files_give_the_model_they_were_written_from(released2: Released, tmp_path: Path) -> None:
    path = tmp_path / "sam2.pt"
    torch.save({"model": read(released2.sam, "--sam") | VIDEO}, path)
    weights = WeightFiles(
        path, released2.sd, released2.lora, released2.prompt_embeds, lora_alpha=8.0
    )
    ours = FileCheckpoint(weights, sam_preset("nano2"), unet_preset("nano"), 5.0, 999)
    theirs = random_nano2()
    same(ours.encoder().state_dict(), theirs.encoder().state_dict())
    same(as_run(ours.decoder().state_dict()), as_run(theirs.decoder().state_dict()))
    assert [source.role for source in ours.sources()] == ["sam", "unet", "lora", "prompt_embeds"]
    assert not ours.encoder().training
    assert not ours.decoder().training


def test_it_is_written_as_meta_does(released2: Released) -> None:
    assert torch.load(released2.sam, weights_only=True).keys() == {"model"}


def test_a_pack_holds_it_all(tmp_path: Path) -> None:
    theirs = random_nano2()
    pack(theirs, tmp_path / "p.safetensors", torch.float32)
    ours = PackedCheckpoint(tmp_path / "p.safetensors")
    assert ours.preset is theirs.preset
    same(ours.encoder().state_dict(), theirs.encoder().state_dict())
    same(as_run(ours.decoder().state_dict()), as_run(theirs.decoder().state_dict()))


@pytest.mark.parametrize("name", ["sam2_hiera_b+", "sam2.1_hiera_t"])
def test_metas_own_keys_fit(name: str) -> None:
    state = meta_state(name)
    assert sam2.misfits(state, SAM2_PRESETS[name]) == []
    assert len(sam2.used(state)) < len(state)


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ("sam2.1_hiera_t", "sam2_hiera_t"),
        ("sam2_hiera_t", "sam2.1_hiera_t"),
        ("sam2.1_hiera_s", "sam2.1_hiera_t"),
        ("sam2_hiera_t", "sam_vit_b"),
    ],
)
def test_another_presets_file_names_the_preset_that_fits(held: str, asked: str) -> None:
    with pytest.raises(CheckpointError, match=f"x.pt: not a {asked} but a {held}; use preset"):
        sam.check(meta_state(held), presets()[asked], "--sam x.pt")


def test_a_sam_file_for_a_sam2_names_the_preset_that_fits() -> None:
    checkpoint = random_nano()
    state = write.sam_state(checkpoint.preset, checkpoint.encoder(), checkpoint.decoder())
    with pytest.raises(CheckpointError, match="not a nano2 but a nano; use preset nano"):
        sam.check(state, sam_preset("nano2"), "--sam x.pth")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sam_mask_decoder.conv_s0.weight": None}, "sam_mask_decoder.conv_s0.weight is missing"),
        ({"no_mem_embed": None}, "no_mem_embed is missing"),
        ({"image_encoder.trunk.head.weight": torch.zeros(2)}, "trunk.head.weight is unknown"),
        ({"no_mem_embed": torch.zeros(1, 1, 2)}, r"no_mem_embed is \[1, 1, 2\], not \[1, 1, 256\]"),
        ({"no_mem_embed": torch.full((1, 1, 256), torch.inf)}, "no_mem_embed holds NaN or inf"),
    ],
    ids=["a projection missing", "no_mem_embed missing", "unknown", "another shape", "infinite"],
)
def test_files_that_fit_nothing(change: dict[str, Tensor | None], words: str) -> None:
    state = of_nano2() | VIDEO | change
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=words):
        sam.check(kept, sam_preset("nano2"), "--sam x.pt")


def test_values_that_only_video_needs_are_not_judged() -> None:
    sam.check(of_nano2() | VIDEO, sam_preset("nano2"), "--sam x.pt")
