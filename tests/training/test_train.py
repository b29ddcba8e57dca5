"""Algorithm 1 at nano's size: what is trained changes, what is frozen does not, losses fall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glesam_evaluation.datasets import open_dataset
from glesam_export.checkpoints import lora
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.enhancer.reference import add_lora, build_unet
from glesam_export.presets import LORA_TARGETS, sam_preset, unet_preset
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_training.examples import CORRECTED, ExampleOptions, Examples, with_prompts
from glesam_training.objectives import DecoderObjective
from glesam_training.settings import TrainingSettings
from glesam_training.train import Job, new_adapters, train_decoder, train_enhancer
from glesam_training.trained_checkpoint import TrainedCheckpoint

State = dict[str, torch.Tensor]


@pytest.fixture
def checkpoint() -> RandomCheckpoint:
    return RandomCheckpoint(0, sam_preset("nano"), unet_preset("nano"), 0.5, 1)


def job(folder: Path, **given: object) -> Job:
    settings = {"iterations": 3, "batch": 2, "workers": 0, "lr": 1e-3, "log_every": 1} | given
    return Job(
        open_dataset("scenes:4"), TrainingSettings(**settings), ExampleOptions(masks=2), folder
    )


def changed(before: State, after: State) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_stage_1_trains_the_adapters_alone(checkpoint: RandomCheckpoint, tmp_path: Path) -> None:
    before = checkpoint.enhancer().state_dict()
    after = train_enhancer(checkpoint, job(tmp_path)).state_dict()
    names = changed(before, after)
    adapters = {name for name in before if ".lora_A." in name or ".lora_B." in name}
    assert names <= adapters
    # Eq. 4 sees T and c through layers whose adapters train too.
    assert len(names) > 0.9 * len(adapters)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("tokens", {"mask_decoder.mask_tokens.weight"}),
        ("background", {"prompt_encoder.point_embeddings.0.weight"}),
        ("all", None),
    ],
)
def test_stage_2_trains_the_named_part(
    part: str, expected: set[str] | None, checkpoint: RandomCheckpoint, tmp_path: Path
) -> None:
    before = checkpoint.decoder().state_dict()
    after = train_decoder(checkpoint, job(tmp_path), part).state_dict()
    names = changed(before, after)
    if expected is not None:
        assert names == expected
    else:
        assert not [name for name in names if "iou_prediction_head" in name]
        assert len(names) > 60


def test_a_background_point_is_learnt(tmp_path: Path) -> None:
    """Replace the embedding of background points by the object's, and check that it is relearnt."""
    nano = make_checkpoint(WeightOptions("nano"))
    spoilt = nano.decoder()
    background, foreground = spoilt.prompt_encoder.point_embeddings[:2]
    background.weight.data.copy_(foreground.weight)
    start = TrainedCheckpoint(nano, None, spoilt)
    settings = {"iterations": 24, "batch": 4, "lr": 0.1}
    learn = replace(job(tmp_path, **settings), examples=ExampleOptions(masks=2, far=0.5))
    trained = train_decoder(start, learn, "background", enhance=False)

    made = Examples(open_dataset("scenes:6@50"), nano.preset, 6, ExampleOptions(seed=1, far=0.5))
    batch = with_prompts([made[number] for number in range(6)], CORRECTED)
    ious = []
    for decoder in (spoilt, trained):
        judge = DecoderObjective(nano.encoder(), None, decoder, "background")
        with torch.no_grad():
            ious.append(float(judge(batch, 0)["iou"]))
    assert ious[1] > ious[0] + 0.1, ious


def test_the_control_never_runs_the_enhancer(
    checkpoint: RandomCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden() -> None:
        raise AssertionError("the control has no enhancer")

    monkeypatch.setattr(checkpoint, "enhancer", forbidden)
    train_decoder(checkpoint, job(tmp_path), "tokens", enhance=False)


def test_the_latent_comes_nearer(tmp_path: Path) -> None:
    """With a small gamma a random enhancer's output outweighs z_L; training reduces it."""
    base = RandomCheckpoint(0, sam_preset("nano"), unet_preset("nano"), 0.02, 1)
    losses: list[float] = []
    learn = job(tmp_path, iterations=40, lr=3e-3, batch=4, log_every=10)
    train_enhancer(
        base, replace(learn, report=lambda _n, _t, found: losses.append(found["mse"])), 0.0
    )
    assert losses[-1] < 0.6 * losses[0]


def test_latents_kept_or_not_is_the_same_training(
    checkpoint: RandomCheckpoint, tmp_path: Path
) -> None:
    fixed = ExampleOptions(masks=2, variants=2)
    found = []
    for name, latents in (("plain", None), ("kept", tmp_path / "latents")):
        mse: list[float] = []
        learn = replace(job(tmp_path / name), examples=fixed, latents=latents)
        train_enhancer(
            checkpoint, replace(learn, report=lambda _n, _t, new, to=mse: to.append(new["mse"]))
        )
        found.append(mse)
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_the_mask_loss_is_there_when_asked_for(
    checkpoint: RandomCheckpoint, tmp_path: Path
) -> None:
    seen: list[dict[str, float]] = []
    learn = replace(job(tmp_path, iterations=1), report=lambda _n, _t, found: seen.append(found))
    train_enhancer(checkpoint, learn, 1.0)
    assert seen[0].keys() == {"loss", "mse", "mse_before", "mask"}


@pytest.mark.parametrize("preset", ["nano", "sd15", "sd21"])
def test_new_adapters_fit_and_change_nothing(preset: str) -> None:
    factors = new_adapters(unet_preset(preset), 4, 0, {"conv_in": 6})
    with torch.device("meta"):
        unet = build_unet(unet_preset(preset))
    parsed = lora.parse(factors, unet, "new")
    assert not any(b.any() for _, b, _ in parsed.values())
    ranks = {name: (a.shape[0], alpha) for name, (a, _, alpha) in parsed.items()}
    assert ranks.pop("conv_in") == (6, 6)
    with pytest.raises(ValueError, match="conv_up: not a layer"):
        new_adapters(unet_preset(preset), 4, 0, {"conv_up": 6})
    assert set(ranks.values()) == {(4, 4)}
    wanted = [n for n, _ in unet.named_modules() if n.endswith(tuple(LORA_TARGETS))]
    assert len(parsed) == len(wanted)
    if preset == "nano":
        real = build_unet(unet_preset(preset)).eval()
        x, c = torch.randn(1, 256, 16, 16), torch.randn(1, 77, 64)
        with torch.no_grad():
            before = real(x, 1, c, return_dict=False)[0]
            add_lora(real, parsed)
            assert torch.equal(real(x, 1, c, return_dict=False)[0], before)


def test_trained_parts_stand_in(checkpoint: RandomCheckpoint) -> None:
    other = RandomCheckpoint(7, checkpoint.preset, checkpoint.unet, 0.5, 1)
    trained = TrainedCheckpoint(checkpoint, decoder=other.decoder())
    assert not changed(trained.decoder().state_dict(), other.decoder().state_dict())
    assert not changed(trained.encoder().state_dict(), checkpoint.encoder().state_dict())
    assert not changed(trained.enhancer().state_dict(), checkpoint.enhancer().state_dict())
