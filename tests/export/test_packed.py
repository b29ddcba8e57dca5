"""A packed file gives back the checkpoint that it was made of; an altered one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from glesam_export.checkpoints import Checkpoint
from glesam_export.checkpoints.packed_file import PackedCheckpoint, pack
from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles
from glesam_export.checkpoints.stable_diffusion import SCHEDULE
from glesam_export.checkpoints.tensor_file import TensorFile
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.bundle import sha256_of
from glesam_runtime.errors import CheckpointError, InputError

from ..released import Released
from .conftest import random_nano

Tensors = dict[str, Tensor]
Metadata = dict[str, str]

PARTS: list[Callable[[Checkpoint], torch.nn.Module]] = [
    lambda checkpoint: checkpoint.encoder(),
    lambda checkpoint: checkpoint.decoder(),
    lambda checkpoint: checkpoint.enhancer(),
]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack nano of seed 0 in fp16; tests must not change it."""
    path = tmp_path_factory.mktemp("packed") / "p.safetensors"
    pack(random_nano(), path, origin="by a test")
    return path


def altered(
    packed: Path, path: Path, tensors: Tensors | None = None, **metadata: str | None
) -> Path:
    """Write a copy with other tensors or other metadata; None removes an entry."""
    with safe_open(packed, "pt") as file:
        entries = file.metadata() | metadata
    kept = {name: value for name, value in entries.items() if value is not None}
    save_file(load_file(packed) if tensors is None else tensors, path, kept)
    return path


def same(ours: Checkpoint, theirs: Checkpoint, rtol: float, atol: float) -> None:
    for part in PARTS:
        first, second = part(ours).state_dict(), part(theirs).state_dict()
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert tensor.dtype == torch.float32
            torch.testing.assert_close(tensor, second[name], rtol=rtol, atol=atol)


def test_it_holds_the_checkpoint_within_fp16s_rounding(packed: Path) -> None:
    found, expected = PackedCheckpoint(packed), random_nano()
    same(found, expected, rtol=2**-11, atol=2**-25)
    assert found.alpha_bar == expected.alpha_bar
    assert (found.gamma, found.timestep, found.trained) == (5.0, 999, False)
    assert (found.origin, found.header.origin) == ("packed", "by a test")
    (source,) = found.sources()
    assert (source.role, source.file, source.sha256) == (
        *("packed", "p.safetensors"),
        sha256_of(packed),
    )


def test_a_second_pack_is_the_same_file(packed: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    pack(PackedCheckpoint(packed), again, origin="by a test")
    same(PackedCheckpoint(again), PackedCheckpoint(packed), rtol=0, atol=0)
    assert again.read_bytes() == packed.read_bytes()


def test_in_float32_nothing_is_lost(tmp_path: Path) -> None:
    pack(random_nano(), tmp_path / "p.safetensors", torch.float32)
    same(PackedCheckpoint(tmp_path / "p.safetensors"), random_nano(), rtol=0, atol=0)


def test_files_are_packed_with_their_schedule_and_alphas(
    released_copy: Released, tmp_path: Path
) -> None:
    config = released_copy.sd / "scheduler" / "scheduler_config.json"
    entries = json.loads(config.read_text()) | {"beta_schedule": "linear"}
    config.write_text(json.dumps(entries))
    lora = load_file(released_copy.lora)
    save_file(lora | {"unet.conv_in.alpha": torch.tensor(3.3)}, released_copy.lora)
    paths = (released_copy.sam, released_copy.sd, released_copy.lora, released_copy.prompt_embeds)
    preset, unet = sam_preset("nano"), unet_preset("nano")
    checkpoint = FileCheckpoint(WeightFiles(*paths, lora_alpha=8.0), preset, unet, 3.1, 700)
    path = tmp_path / "p.safetensors"
    pack(checkpoint, path)
    found = PackedCheckpoint(path, origin="elsewhere")
    assert (found.trained, found.origin) == (True, "elsewhere")
    assert (found.gamma, found.timestep) == (3.1, 700)
    assert found.schedule == entries
    assert found.alpha_bar == checkpoint.alpha_bar != random_nano(timestep=700).alpha_bar
    assert {n: alpha for n, (_, _, alpha) in found.lora_factors.items() if alpha != 8.0} == {
        "conv_in": pytest.approx(3.3, rel=1e-7)
    }
    again = tmp_path / "again.safetensors"
    pack(found, again)
    assert load_file(again).keys() == load_file(path).keys()


def test_a_part_is_read_when_it_is_built(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, read = PackedCheckpoint(packed), []
    whole = TensorFile.read
    monkeypatch.setattr(
        TensorFile, "read", lambda file, prefix: read.append(prefix) or whole(file, prefix)
    )
    found.encoder()
    assert read == ["sam."]
    found.enhancer()
    assert read == ["sam.", "unet."]


def test_a_weight_past_fp16_is_refused_and_nothing_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = random_nano()
    encoder = checkpoint.encoder()
    encoder.pos_embed[0, 0, 0, 0] = 1e5
    monkeypatch.setattr(checkpoint, "encoder", lambda: encoder)
    path = tmp_path / "p.safetensors"
    with pytest.raises(
        CheckpointError, match=r"sam\.image_encoder\.pos_embed .*in float16"
    ) as caught:
        pack(checkpoint, path)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    pack(checkpoint, path, torch.bfloat16)
    with pytest.raises(InputError, match="does not exist"):
        pack(random_nano(), tmp_path / "nowhere" / "p.safetensors")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"format": "pt"}, r"not a packed checkpoint .*'pt'.*--sam"),
        ({"format": None}, r"not a packed checkpoint .*None"),
        ({"version": "2"}, "version 2, this program reads 1; upgrade"),
        ({"version": None}, "version None"),
        ({"preset": None}, "missing required field `preset`"),
        ({"preset": "big"}, "preset big: unknown"),
        ({"unet": "big"}, "unet big: unknown"),
        ({"preset": "sam_vit_b"}, r"\(sam\): not a sam_vit_b but a nano"),
        ({"unet": "sd21"}, r"\(unet\): not a sd21: .* and \d+ more"),
        ({"gamma": "many"}, r"Expected `float`.*\$\.gamma"),
        ({"gamma": "0"}, r"> 0.*\$\.gamma"),
        ({"gamma": "nan"}, "gamma"),
        ({"gamma": "inf"}, "gamma is inf"),
        ({"timestep": "1.5"}, r"\$\.timestep"),
        ({"timestep": "-1"}, r"\$\.timestep"),
        ({"timestep": "1000"}, r"timestep 1000: outside 0\.\.999 of its schedule"),
        ({"trained": "maybe"}, r"\$\.trained"),
        ({"trained": None}, "`trained`"),
        ({"schedule": "{"}, "schedule: .*truncated"),
        ({"schedule": "[]"}, "schedule: Expected `object`"),
        ({"schedule": json.dumps({**SCHEDULE, "beta_schedule": "wavy"})}, "no noise schedule"),
        (
            {"schedule": json.dumps({**SCHEDULE, "prediction_type": "v_prediction"})},
            "v_prediction",
        ),
        ({"schedule": '{"beta_schedule": "linear"}'}, "lacks beta_start, beta_end"),
    ],
)
def test_metadata_that_cannot_be_used(
    metadata: Metadata, words: str, packed: Path, tmp_path: Path
) -> None:
    path = altered(packed, tmp_path / "x.safetensors", **metadata)
    with pytest.raises(CheckpointError, match=words) as caught:
        PackedCheckpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_metadata_of_other_tools_are_passed_over(packed: Path, tmp_path: Path) -> None:
    path = altered(packed, tmp_path / "x.safetensors", other="x", origin=None, trained="true")
    found = PackedCheckpoint(path)
    assert (found.trained, found.header.origin) == (True, "")


TOKEN, CONV, A = "sam.mask_decoder.iou_token.weight", "unet.conv_in.weight", "lora.conv_in.lora_A"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(TOKEN), r"\(sam\): .*mask_decoder\.iou_token\.weight is missing"),
        (lambda t: t.pop(CONV), r"\(unet\): .*conv_in\.weight is missing"),
        (lambda t: t.pop(f"{A}.weight"), r"\(lora\): .*conv_in lacks one of its two"),
        (lambda t: t.pop("text"), "text is missing"),
        (lambda t: t[TOKEN].fill_(float("nan")), r"iou_token\.weight holds NaN"),
        (lambda t: t[CONV].fill_(float("inf")), r"conv_in\.weight holds NaN or inf"),
        (lambda t: t[f"{A}.weight"].fill_(float("nan")), r"\(lora\): .*holds NaN"),
        (lambda t: t["text"].fill_(float("nan")), r"\(text\): the embedding holds NaN"),
        (lambda t: t.update({TOKEN: torch.ones(3)}), r"iou_token\.weight is \[3\], not \[1, 256\]"),
        (lambda t: t.update({CONV: torch.ones(32, 256, 3, 3)}), r"conv_in\.weight is \[32, 256"),
        (lambda t: t.update({f"{A}.weight": torch.ones(8, 4, 3, 3)}), r"conv_in has A \[8, 4"),
        (lambda t: t.update({"lora.nowhere.alpha": torch.ones(())}), "nowhere is not a layer"),
        (lambda t: t.update({"text": torch.ones(1, 77, 768)}), r"\[1, 77, 768\], nano takes"),
        (lambda t: t.update({"text": torch.ones(1, 77, 64).int()}), "not a float"),
        (lambda t: t.update({"unet.x": torch.ones(1)}), r"\(unet\): .*x is unknown"),
        (lambda t: t.update({"text2": torch.ones(1)}), "text2 is unknown"),
        (lambda t: t.update({"vae.x": torch.ones(1)}), r"vae\.x is unknown"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("sam.")], "is missing"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("lora.")], r"\(lora\): holds no ad"),
    ],
)
def test_tensors_that_cannot_be_used(
    change: Callable[[Tensors], object], words: str, packed: Path, tmp_path: Path
) -> None:
    spoiled = load_file(packed)
    change(spoiled)
    path = altered(packed, tmp_path / "x.safetensors", spoiled)
    with pytest.raises(CheckpointError, match=words) as caught:
        PackedCheckpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 100, 100_000, -1])
def test_a_file_that_was_cut_off(keep: int, packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(packed.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"x\.safetensors: not a .safetensors.*fetch"):
        PackedCheckpoint(path)


def test_what_is_not_packed(released: Released, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        PackedCheckpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"sam\.pth: not a packed checkpoint"):
        PackedCheckpoint(released.sam)
    with pytest.raises(CheckpointError, match="not a packed checkpoint"):
        PackedCheckpoint(released.lora)
