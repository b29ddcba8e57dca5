"""SAM 2 in training and evaluation: both stages, and files that sam2 itself reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2 as build_metas
from sam2.modeling.sam.transformer import TwoWayTransformer
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor

from glesam_evaluation.datasets import open_dataset
from glesam_evaluation.scenes import make_scene
from glesam_export.checkpoints.formats import open_checkpoint
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.families import HIGH_RES
from glesam_export.families.sam2.reference import build_sam2
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.console import exit_code_of
from glesam_training.cli import app
from glesam_training.examples import ExampleOptions, Examples, with_prompts
from glesam_training.nano.sam import ClearExamples, SamNano, SamObjective
from glesam_training.objectives import DecoderObjective, EnhancerObjective
from glesam_training.reference_segmenters import reference_segmenters
from glesam_training.settings import TrainingSettings
from glesam_training.train import Job, stored_latents, train_decoder, train_enhancer
from glesam_training.trained_checkpoint import write_checkpoint

from ..released import write_diffusion, write_sam


@pytest.fixture
def checkpoint() -> RandomCheckpoint:
    return RandomCheckpoint(0, sam_preset("nano2"), unet_preset("nano"), 0.5, 1)


def job(folder: Path, latents: Path | None = None, iterations: int = 2, lr: float = 1e-3) -> Job:
    settings = TrainingSettings(iterations=iterations, batch=2, workers=0, lr=lr, log_every=1)
    options = ExampleOptions(masks=2, variants=1 if latents else None)
    return Job(open_dataset("scenes:2"), settings, options, folder, latents)


@pytest.mark.parametrize("kept", [False, True], ids=["encoded each time", "latents kept"])
def test_the_enhancer_is_trained_and_written(
    kept: bool, checkpoint: RandomCheckpoint, tmp_path: Path
) -> None:
    before = checkpoint.enhancer().state_dict()
    after = train_enhancer(checkpoint, job(tmp_path, tmp_path / "latents" if kept else None))
    found = {name for name, value in after.state_dict().items() if not value.equal(before[name])}
    assert found
    assert all(".lora_" in name for name in found)
    again = open_checkpoint(write_checkpoint(checkpoint, tmp_path, enhancer=after))
    assert again.preset.name == "nano2"
    encoder = checkpoint.encoder().state_dict()
    assert all(value.equal(encoder[name]) for name, value in again.encoder().state_dict().items())


def changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(("part", "kept"), [("tokens", False), ("all", True)])
def test_stage_2_trains_the_named_part(
    part: str, kept: bool, checkpoint: RandomCheckpoint, tmp_path: Path
) -> None:
    """The loss falls, and only the tokens, or all that masks depend on, changes."""
    losses: list[float] = []
    steps = 2 if part == "tokens" else 6
    learn = job(tmp_path, tmp_path / "latents" if kept else None, iterations=steps, lr=3e-3)
    learn = replace(learn, report=lambda _d, _t, found: losses.append(found["loss"]))
    before = checkpoint.decoder().state_dict()
    names = changed(before, train_decoder(checkpoint, learn, part).state_dict())
    if part == "tokens":
        assert names == {"mask_decoder.mask_tokens.weight"}
    else:
        assert len(names) > 60
        unused = ("_head.", ".conv_s0.", ".conv_s1.", ".mask_downscaling.")
        assert not [name for name in names if any(word in name for word in unused)]
        assert sum(losses[-3:]) < sum(losses[:3])


def test_the_mask_loss_sees_the_high_resolution_features(checkpoint: RandomCheckpoint) -> None:
    """Gradient reaches the adapters in stage 1 and the decoder in stage 2, and nothing else."""
    examples = Examples(open_dataset("scenes:1"), checkpoint.preset, 1, ExampleOptions(masks=1))
    batch = with_prompts([examples[0]], ("box",), padded_boxes=True)
    assert batch["labels"][0, 0].tolist() == [2, 3, -1]
    encoder = checkpoint.encoder()
    first = EnhancerObjective(encoder, checkpoint.enhancer(), checkpoint.decoder(), 1.0)
    first(batch, 0.0)["mask"].backward()
    with_gradient = {name for name, p in first.named_parameters() if p.grad is not None}
    assert with_gradient
    assert all(".lora_" in name for name in with_gradient)

    second = DecoderObjective(encoder, checkpoint.enhancer(), checkpoint.decoder(), "all")
    loss = second(batch, 0.0)["loss"]
    loss.backward()
    with_gradient = {name for name, p in second.named_parameters() if p.grad is not None}
    assert all(name.startswith("decoder.") for name in with_gradient)
    assert "decoder.mask_decoder.mask_tokens.weight" in with_gradient
    assert not [name for name in with_gradient if "_head." in name]
    with torch.no_grad():
        encoder.conv_s1.weight.zero_()
        encoder.conv_s0.weight.zero_()
        assert abs(float(second(batch, 0.0)["loss"] - loss)) > 1e-4


def test_stored_features_are_the_encoders(checkpoint: RandomCheckpoint, tmp_path: Path) -> None:
    learn = job(tmp_path, tmp_path / "latents")
    plain = Examples(learn.dataset, checkpoint.preset, 2, learn.examples)
    without = stored_latents(checkpoint, learn)
    assert without[1].keys() & set(HIGH_RES) == set()
    stored = stored_latents(checkpoint, learn, high_res=True)
    assert len(list((tmp_path / "latents").iterdir())) == 3
    features = checkpoint.encoder()(plain[1]["low"][None])
    for name, expected in zip(("z_l", *HIGH_RES), features, strict=True):
        torch.testing.assert_close(stored[1][name], expected[0], rtol=2e-3, atol=2e-3)


def test_sam_nano_2_learns() -> None:
    """The first iterations of `make nano2` on one batch; the whole training takes hours."""
    preset = sam_preset("nano2")
    torch.manual_seed(0)
    sam = SamNano(preset)
    assert float(sam.encoder.image_encoder.trunk.pos_embed.detach().abs().mean()) > 0.01
    objective = SamObjective(sam)
    examples = ClearExamples(open_dataset("scenes:2"), preset, 2, ExampleOptions(masks=2))
    batch = with_prompts([examples[0], examples[1]], padded_boxes=True)
    optimizer = torch.optim.AdamW(sam.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = objective(batch, 0.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def metas(path: Path | None, monkeypatch: pytest.MonkeyPatch) -> SAM2Base:
    """Build nano2 by sam2's own builder, with all that only video needs."""
    narrow = lambda **given: TwoWayTransformer(**given | {"mlp_dim": 256})  # noqa: E731
    monkeypatch.setattr("sam2.modeling.sam2_base.TwoWayTransformer", narrow)
    trunk, neck = "model.image_encoder.trunk", "model.image_encoder.neck"
    sizes = [
        *("model.image_size=256", f"{trunk}.embed_dim=32", f"{trunk}.stages=[1,2,3,2]"),
        *(f"{trunk}.global_att_blocks=[4]", f"+{trunk}.window_spec=[8,4,6,3]"),
        *(f"{neck}.backbone_channel_list=[256,128,64,32]", "model.memory_attention.num_layers=1"),
    ]
    name = "configs/sam2.1/sam2.1_hiera_t.yaml"
    return build_metas(name, path and str(path), device="cpu", hydra_overrides_extra=sizes)


def test_sam2_reads_what_stage_2_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its builder loads the file, with what only video needs, and gives our masks."""
    torch.manual_seed(0)
    torch.save({"model": metas(None, monkeypatch).state_dict()}, tmp_path / "metas.pt")
    enhancer = RandomCheckpoint(0, sam_preset("nano"), unet_preset("nano"), 0.5, 1)
    files = write_diffusion(tmp_path, enhancer)
    run = tmp_path / "run"
    words: list[object] = [
        *("decoder", "scenes:1", "-o", run, "--all", "--lr", "1e-2", "--iterations", 2),
        *("--batch", 1, "--workers", 0, "--masks", 1, "--gamma", 0.5, "--timestep", 1),
        *("--sam", tmp_path / "metas.pt", "--sd", files.sd, "--lora", files.lora),
        *("--lora-alpha", 8, "--prompt-embeds", files.prompt_embeds),
    ]
    assert exit_code_of(app, "glesam-train", [str(word) for word in words]) == 0
    before, after = (
        torch.load(path, weights_only=True)["model"]
        for path in (tmp_path / "metas.pt", run / "sam.pt")
    )
    names = changed(before, after)
    assert len(names) > 60
    assert all(name.startswith(("sam_mask_decoder.", "sam_prompt_encoder.")) for name in names)
    assert any(name.startswith("memory_attention.") for name in after)

    image = make_scene(3, 180, 240).image
    boxes = np.array([[20.0, 30, 120, 140], [100, 10, 230, 170]])
    predictor = SAM2ImagePredictor(metas(run / "sam.pt", monkeypatch))
    predictor._bb_feat_sizes = [(64, 64), (32, 32), (16, 16)]
    predictor.set_image(image)
    expected, _, _ = predictor.predict(box=boxes, multimask_output=False)
    trained = open_checkpoint(run)
    assert trained.preset.name == "nano2"
    ours = reference_segmenters(trained, "cpu")["without enhancer"]
    ours.set_image(image)
    assert (ours.segment(None, None, boxes) != expected[:, 0]).mean() < 1e-3

    def refused(words: list[object], message: str) -> None:
        capsys.readouterr()
        assert exit_code_of(app, "glesam-train", [str(word) for word in words]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert message in line
        assert not (tmp_path / "other").exists()

    # SAM 2's file in stage 2 of SAM, and the reverse
    words[3] = tmp_path / "other"
    refused([*words, "--preset", "nano"], "not a nano but a nano2; use preset nano2")
    sam = write_sam(tmp_path / "sam.pth", enhancer)
    words[words.index("--sam") + 1] = sam
    refused([*words, "--preset", "nano2"], "not a nano2 but a nano; use preset nano")


def test_the_reference_segments_as_sam2_does(checkpoint: RandomCheckpoint) -> None:
    """With random weights masks are noise, but both give the same noise."""
    image = make_scene(3, 180, 240).image
    boxes = np.array([[20.0, 30, 120, 140], [100, 10, 230, 170]])
    predictor = SAM2ImagePredictor(build_sam2(checkpoint.encoder(), checkpoint.decoder()))
    predictor._bb_feat_sizes = [(64, 64), (32, 32), (16, 16)]
    predictor.set_image(image)
    for name, segmenter in reference_segmenters(checkpoint, "cpu").items():
        if name == "with enhancer":
            with torch.no_grad():
                embedding = checkpoint.enhancer()(predictor._features["image_embed"])
                predictor._features["image_embed"] = embedding.float()
        segmenter.set_image(image)
        expected, _, _ = predictor.predict(box=boxes, multimask_output=False)
        masks = segmenter.segment(None, None, boxes)
        assert 0 < expected.mean() < 1
        assert (masks != expected[:, 0]).mean() < 1e-3, name
