"""A checkpoint folder: written, opened, moved, and every way its checkpoint.json can be wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glesam_export.checkpoints.checkpoint_folder import (
    CheckpointJson,
    read_checkpoint_json,
    write_checkpoint_json,
)
from glesam_export.checkpoints.formats import open_checkpoint
from glesam_export.checkpoints.packed_file import PackedCheckpoint, pack
from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles
from glesam_runtime.errors import CheckpointError, InputError

from ..released import Released
from .conftest import random_nano

Entries = dict[str, object]


def files_of(released: Released) -> WeightFiles:
    return WeightFiles(
        released.sam, released.sd, released.lora, released.prompt_embeds, lora_alpha=8.0
    )


@pytest.fixture
def folder(released: Released, tmp_path: Path) -> Path:
    """Write a checkpoint folder whose weights lie outside of it."""
    made = tmp_path / "run"
    made.mkdir()
    write_checkpoint_json(made, files_of(released), "nano", "nano", 5.0, 999)
    return made


def change(folder: Path, **entries: object) -> None:
    """Set entries of checkpoint.json; None removes one."""
    path = folder / "checkpoint.json"
    described = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({k: v for k, v in described.items() if v is not None}))


def test_a_folder_is_the_checkpoint_of_its_files(folder: Path) -> None:
    found, expected = open_checkpoint(folder), random_nano()
    assert isinstance(found, FileCheckpoint)
    assert (found.preset.name, found.unet.name, found.trained) == ("nano", "nano", True)
    assert (found.gamma, found.timestep, found.origin) == (5.0, 999, "files")
    assert found.alpha_bar == expected.alpha_bar
    assert [source.role for source in found.sources()] == ["sam", "unet", "lora", "prompt_embeds"]
    ours, theirs = found.decoder().state_dict(), expected.decoder().state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_files_inside_are_named_relative_and_move_along(
    released_copy: Released, tmp_path: Path
) -> None:
    made = released_copy.sam.parent
    write_checkpoint_json(made, files_of(released_copy), "nano", "nano", 5.0, 999)
    expected = CheckpointJson(
        format="glesam-checkpoint",
        version=1,
        preset="nano",
        unet="nano",
        gamma=5.0,
        timestep=999,
        sam="sam.pth",
        sd="sd",
        lora="lora.safetensors",
        prompt_embeds="c.safetensors",
        lora_alpha=8.0,
    )
    assert read_checkpoint_json(made / "checkpoint.json") == expected
    moved = Path(shutil.move(made, tmp_path / "moved"))
    assert open_checkpoint(moved).gamma == 5.0


def test_files_outside_are_named_absolutely(
    folder: Path, released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = json.loads((folder / "checkpoint.json").read_text())
    assert entries["sd"] == str(released.sd)
    monkeypatch.chdir(released.sam.parent)
    relative = WeightFiles(Path("sam.pth"), Path("sd"), Path("lora.safetensors"))
    write_checkpoint_json(folder, relative, "nano", "nano", 1.0, 1)
    found = read_checkpoint_json(folder / "checkpoint.json")
    assert (found.sam, found.prompt_embeds) == (str(released.sam), None)


def test_relative_paths_are_relative_to_the_folder(
    folder: Path, released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder, sam=os.path.relpath(released.sam, folder))
    monkeypatch.chdir("/")
    assert open_checkpoint(folder).preset.name == "nano"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"format": "other"}, "\"format\" is 'other', not 'glesam-checkpoint'"),
        ({"version": 2}, "version 2, this program reads 1"),
        ({"version": "1"}, r"Expected `int`, got `str`"),
        ({"optimizer": "adam"}, "unknown field `optimizer`"),
        ({"sam": None}, "missing required field `sam`"),
        ({"sam": ""}, "length >= 1"),
        ({"sam": 3}, r"Expected `str`.*\$\.sam"),
        ({"gamma": 0}, r"> 0.*\$\.gamma"),
        ({"gamma": "5"}, r"\$\.gamma"),
        ({"timestep": -1}, r"\$\.timestep"),
        ({"timestep": 1.5}, r"\$\.timestep"),
        ({"timestep": 1000}, r"timestep 1000: outside 0\.\.999"),
        ({"preset": "big"}, "preset big: unknown; choose one of nano"),
        ({"unet": "big"}, "unet big: unknown; choose one of nano"),
        ({"preset": "sam_vit_b"}, "sam .*not a sam_vit_b but a nano; use preset nano"),
        ({"unet": "sd21"}, "sd .*not sd21.*use U-Net nano"),
        ({"sam": "nowhere.pth"}, r"sam .*run/nowhere\.pth: no such file"),
        ({"sam": "/nowhere.pth"}, r"sam /nowhere\.pth: no such file"),
        ({"sam": "a\0b"}, "no such file"),
        ({"lora": "nowhere"}, "lora .*run/nowhere: no such file"),
        ({"sd": "nowhere"}, "sd: no U-Net configuration at .*run/nowhere"),
        ({"prompt_embeds": "nowhere"}, "prompt-embeds .*run/nowhere: no such file"),
        ({"prompt_embeds": None}, "tokenizer/ holds none"),
    ],
)
def test_entries_that_cannot_be_used(entries: Entries, words: str, folder: Path) -> None:
    change(folder, **entries)
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(folder)
    assert str(caught.value).startswith(f"{folder / 'checkpoint.json'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b'{"gamma": NaN}', b"[" * 100_000]
)
def test_what_is_not_our_json(raw: bytes, folder: Path) -> None:
    (folder / "checkpoint.json").write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json: "):
        open_checkpoint(folder)


def test_what_is_no_checkpoint(tmp_path: Path, released: Released) -> None:
    with pytest.raises(CheckpointError, match=r"no such checkpoint; pass a folder"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"cannot be read.*--sam, --sd, --lora"):
        open_checkpoint(tmp_path)
    (tmp_path / "checkpoint.json").mkdir()
    with pytest.raises(CheckpointError, match=r"checkpoint\.json: cannot be read"):
        open_checkpoint(tmp_path)
    for file in (released.sam, released.lora):
        with pytest.raises(CheckpointError, match=rf"{file.name}: not a"):
            open_checkpoint(file)


def test_a_file_is_a_packed_checkpoint(tmp_path: Path) -> None:
    pack(random_nano(), tmp_path / "p.safetensors")
    assert isinstance(open_checkpoint(tmp_path / "p.safetensors"), PackedCheckpoint)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda a: {**a, "preset": "big"}, "--preset big: unknown"),
        (lambda a: {**a, "unet": "big"}, "--unet big: unknown"),
        (lambda a: {**a, "gamma": float("nan")}, "--gamma nan: must be a positive"),
        (lambda a: {**a, "gamma": 0.0}, "--gamma 0: must be a positive"),
        (lambda a: {**a, "folder": Path("/nowhere")}, "its folder does not exist"),
    ],
)
def test_what_cannot_be_written_is_not(
    spoil: Callable[[Entries], Entries], words: str, released: Released, tmp_path: Path
) -> None:
    good: Entries = {"preset": "nano", "unet": "nano", "gamma": 1.0, "timestep": 1}
    arguments = spoil(good | {"folder": tmp_path, "weights": files_of(released)})
    with pytest.raises(InputError, match=words):
        write_checkpoint_json(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_json_cannot_hold(released: Released, tmp_path: Path) -> None:
    odd = WeightFiles(Path(os.fsdecode(b"/\xff.pth")), released.sd, released.lora)
    with pytest.raises(InputError, match="not UTF-8"):
        write_checkpoint_json(tmp_path, odd, "nano", "nano", 1.0, 1)
