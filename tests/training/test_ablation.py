"""`glesam-train ablate`: what is varied is varied, the rest is nano, and costs are counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from glesam_export.checkpoints import Checkpoint, write
from glesam_export.enhancer.reference import build_unet
from glesam_export.presets import LORA_TARGETS, unet_preset
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_runtime.console import exit_code_of
from glesam_training.cli import app
from glesam_training.nano import ablation, ablation_report, recipe
from glesam_training.nano.kinds import Kind
from glesam_training.nano.scenes import WideScenes, store_scenes
from glesam_training.nano.variants import ProjectedUNet, Variant, new_enhancer, variants_of
from glesam_training.objectives import EnhancerObjective
from glesam_training.saved_state import STATE_FILE
from glesam_training.trained_checkpoint import TrainedCheckpoint
from glesam_training.training_record import checkpoint_record


@pytest.fixture(scope="module")
def nano() -> Checkpoint:
    return make_checkpoint(WeightOptions("nano"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    once = replace(recipe.QUICK.enhancer, iterations=1, batch=2)
    small = replace(recipe.QUICK, pictures=2, variants=1, fit_pairs=32, enhancer=once)
    monkeypatch.setitem(recipe.RECIPES, ("nano", True), small)


def run(*words: object) -> int:
    return exit_code_of(app, "glesam-train", ["ablate", *(str(word) for word in words)])


def counted(rank: int) -> int:
    """Count the parameters of adapters by the shapes of diffusers' U-Net."""
    with torch.device("meta"):
        unet = build_unet(unet_preset("nano"))
    total = 0
    for name, layer in unet.named_modules():
        if any(name == ending or name.endswith("." + ending) for ending in LORA_TARGETS):
            r = min(2 * rank, 32) if name in ("conv_in", "conv_out") else rank
            out, *inputs = layer.weight.shape
            total += r * (out + int(np.prod(inputs)))
    return total


@pytest.mark.usefixtures("tiny")
def test_ranks_are_trained_measured_and_found_again(
    nano: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("rank", "-o", tmp_path, "--quick", "--values", "2", "--scenes", 1) == 0
    out = capsys.readouterr().out
    table = (tmp_path / "rank.md").read_text()
    assert out.startswith(table)
    head, _, plain, *rows = [[c.strip() for c in x.split("|")[1:-1]] for x in table.splitlines()]
    assert head[-5:] == ["LQ-3", "LQ-2", "LQ-1", "LQ mean", "clear"]
    assert plain[0] == "without enhancer"
    assert [row[0] for row in rows] == ["rank 2"]
    assert [row[1] for row in rows] == [f"{counted(2):,}"]
    for row in rows:
        assert float(row[2]) > 0
        assert 0.1 < float(row[3]) < 100
        lq = [float(cell) for cell in row[4:7]]
        assert float(row[7]) == pytest.approx(sum(lq) / 3, abs=0.011)
    pixels = np.asarray(Image.open(tmp_path / "rank.png").convert("RGB")).astype(int)
    coloured = (pixels.max(axis=2) - pixels.min(axis=2)) > 60
    assert all(half.sum() > 100 for half in np.array_split(coloured, 2, axis=1))

    said: list[str] = []
    (variant,) = variants_of("rank", "2", nano.gamma)
    checkpoint, cost = ablation.train_variant(
        *(nano, variant, recipe.ablation_recipe("nano", True), tmp_path, 0),
        lambda step, *_: said.append(step),
    )
    assert said == [], "found, with the cost that was measured"
    assert f"{cost.seconds:.3f}" == rows[0][2]
    path = tmp_path / "gamma-0.125-rank-2-levels-0+1+2+3-seed-0" / STATE_FILE
    state = torch.load(path, weights_only=True)["model"]
    learnt = checkpoint.enhancer().unet.state_dict()
    assert all(torch.equal(learnt[name], tensor) for name, tensor in state.items())


@pytest.mark.usefixtures("tiny")
def test_inputs_are_trained_and_run_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation_report, "WIDE", {"4:3": (96, 128), "16:9": (72, 128)})
    assert run("input", "-o", tmp_path, "--quick", "--scenes", 1) == 0
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in (tmp_path / "input.md").read_text().splitlines()
    ]
    head, _, *rows = cells
    assert head[4:] == ["LQ mean, 4:3", "clear, 4:3", "LQ mean, 16:9", "clear, 16:9"]
    by_name = {row[0]: row[4:] for row in rows}
    assert list(by_name) == [
        f"{name}, run with {used}"
        for used in ("sam", "released")
        for name in ("without enhancer", "input sam", "input released")
    ]
    # A run differs from the other by its input, and a training from the other by its weights.
    assert by_name["input sam, run with sam"] != by_name["input sam, run with released"]
    assert by_name["input sam, run with sam"] != by_name["input released, run with sam"]
    for name, used in (("sam", "released"), ("released", "sam")):
        record = torch.load(
            tmp_path / f"gamma-0.125-rank-16-levels-0+1+2+3-input-{name}-wide-seed-0" / STATE_FILE,
            weights_only=True,
        )["made_of"]
        assert name in str(record["--input"])
        assert used not in str(record["--input"])


@pytest.mark.usefixtures("tiny")
def test_recipes_are_measured_on_both(tmp_path: Path) -> None:
    assert run("recipe", "-o", tmp_path, "--quick", "--scenes", 1) == 0
    table = (tmp_path / "recipe.md").read_text().splitlines()
    levels = [f"{level}, released" for level in ("LQ-3", "LQ-2", "LQ-1", "LQ mean")]
    assert [cell.strip() for cell in table[0].split("|")[9:-1]] == ["clear", *levels]
    assert [line.split("|")[1].strip() for line in table[2:]] == [
        "without enhancer",
        "recipe paper",
        "recipe released",
    ]
    cells = [cell.strip() for cell in table[2].split("|")[5:-1]]
    assert cells[0] != cells[5], "the released LQ-3 is another picture"


def test_rows_of_several_tables_that_are_equal_train_once() -> None:
    every = [v for kind in get_args(Kind) for v in variants_of(kind, None, 0.125)]
    keys = [each.key for each in every]
    usual = [each for each in every if each.key == "gamma-0.125-rank-16-levels-0+1+2+3"]
    assert [each.name for each in usual] == [
        "gamma 0.125",
        "rank 16",
        "levels 0+1+2+3",
        "recipe paper",
    ]
    # Two rows share a folder only if everything but their names is equal.
    assert len(set(keys)) == len({replace(each, name="") for each in every})


def test_wide_pictures_are_cut_in_turn(tmp_path: Path) -> None:
    square = store_scenes(tmp_path, 4, 0, 96)
    wide = WideScenes(square.path, square.first, 4)
    shapes = [wide[index].image.shape for index in range(4)]
    assert shapes == [(72, 96, 3), (54, 96, 3), (72, 96, 3), (54, 96, 3)]
    for index in range(4):
        assert np.array_equal(wide[index].image, square[index].image[: shapes[index][0]])
        assert wide[index].masks.shape[1:] == shapes[index][:2]
        assert wide[index].masks.any(axis=(1, 2)).all()
    assert isinstance(wide.first_pictures(2), WideScenes)
    assert wide.fingerprint != square.fingerprint


@pytest.mark.usefixtures("tiny")
def test_parts_that_are_left_out(nano: Checkpoint, tmp_path: Path) -> None:
    found = variants_of("parts", None, nano.gamma)
    parts = {each.name: (each.cre, each.gamma, each.fitted) for each in found}
    assert parts == {
        "CRE and FDA": (True, nano.gamma, False),
        "without CRE": (False, nano.gamma, False),
        "without FDA": (True, 1.0, False),
        "without both": (False, 1.0, False),
    }
    made, cost = ablation.train_variant(
        *(nano, found[1], recipe.ablation_recipe("nano", True), tmp_path, 0), lambda *_: None
    )
    before = new_enhancer(nano, found[1], 0).unet.state_dict()
    after = made.enhancer().unet.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in changed if ".lora_" not in name} == {
        *("before.weight", "before.bias", "behind.weight", "behind.bias"),
    }
    assert cost.parameters > 2 * 4 * 256


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("gamma --values 0", "--values 0: a gamma must be a positive number"),
        ("gamma --values 1,inf", "--values inf: a gamma must be a positive number"),
        ("gamma --values 1,,2", "--values : a gamma must"),
        ("rank --values 8,x", "--values x: a rank must be a whole number from 1"),
        ("rank --values 0", "--values 0: a rank must be"),
        ("rank --values 257", "--values 257: a rank must be a whole number from 1 to 256"),
        ("levels --values 1+4", "--values 1+4: join levels by +"),
        ("levels --values 0", "--values 0: join levels by +"),
        ("parts --values 1", "--values 1: parts has no values"),
        ("recipe --values paper", "--values paper: recipe has no values"),
        ("input --preset nano2", "nano2 has only the input 'sam'"),
        ("colour", "colour"),
    ],
)
def test_wrong_values(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words.split(), "-o", tmp_path / "out") == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "out").exists()


def test_the_default_values() -> None:
    gammas = [each.gamma for each in variants_of("gamma", None, 0.5)]
    assert gammas == [0.125, 0.25, 0.5, 1, 2]
    assert [each.rank for each in variants_of("rank", None, 0.5)] == [4, 8, 16]
    found = variants_of("levels", "1,2+3, 0+1", 0.5)
    assert [each.levels for each in found] == [(1,), (2, 3), (0, 1)]
    assert {each.gamma for each in found} == {0.5}


def test_new_adapters_leave_the_base_and_cre_alone(nano: Checkpoint) -> None:
    """CRE sums the 64 copies of each channel and repeats the base's output 64 times."""
    made = new_enhancer(nano, Variant("x", 0.25, rank=2), 0)
    base = build_unet(unet_preset("nano"), channels=4)
    base.load_state_dict(write.base_state(nano.enhancer().unet))
    z = torch.randn(1, 256, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        summed = 0.25 * z.reshape(1, 64, 4, 16, 16).sum(1)
        expected = base.eval()(summed, nano.timestep, made.text).sample.repeat(1, 64, 1, 1)
        torch.testing.assert_close(made.eps(z), expected, rtol=1e-3, atol=1e-3)
    checkpoint = TrainedCheckpoint(nano, made)
    assert checkpoint.gamma == 0.25
    assert checkpoint_record(checkpoint, Path())["--gamma"].value == 0.25


def test_without_cre_two_convolutions_are_learnt(nano: Checkpoint) -> None:
    made = new_enhancer(nano, Variant("x", 0.25, rank=2, cre=False), 0)
    projected = made.unet
    assert isinstance(projected, ProjectedUNet)
    base = build_unet(unet_preset("nano"), channels=4)
    base.load_state_dict(write.base_state(nano.enhancer().unet))
    z = torch.randn(1, 256, 16, 16, generator=torch.Generator().manual_seed(0))
    before, behind = (layer.weight[..., 0, 0] for layer in (projected.before, projected.behind))
    with torch.no_grad():
        inner = torch.einsum("oc,nchw->nohw", before, 0.25 * z)
        inner += projected.before.bias[:, None, None]
        inner = base.eval()(inner, nano.timestep, made.text).sample
        expected = torch.einsum("oc,nchw->nohw", behind, inner)
        expected += projected.behind.bias[:, None, None]
        torch.testing.assert_close(made.eps(z), expected, rtol=1e-4, atol=1e-4)
    objective = EnhancerObjective(None, made)
    objective({"z_l": z, "z_h": z + 1}, 0.0)["loss"].backward()
    learnt = {name for name, p in objective.named_parameters() if p.grad is not None}
    assert {name for name in learnt if ".lora_" not in name} == {
        f"enhancer.unet.{layer}.{kind}"
        for layer in ("before", "behind")
        for kind in ("weight", "bias")
    }
