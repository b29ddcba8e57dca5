"""A wrong gamma or timestep gives a warning that names the right pair."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer

from glesam_export.checkpoints import Checkpoint
from glesam_export.checkpoints.stable_diffusion import SCHEDULE, alpha_bar
from glesam_export.enhancer.reference import ADAPTER, Enhancer
from glesam_export.verify import latent_check, reference_outputs
from glesam_export.verify.cases import Case, make_cases
from glesam_export.verify.reference_outputs import Outputs, known
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint

Recorded = tuple[list[Case], list[Outputs]]


class Rescaled:
    """A trained checkpoint, converted exactly to another gamma at the same T.

    eps sees gamma z through conv_in alone and gives its answer through conv_out alone, so scaling
    the two makes the same function of z (the fold's own argument, Eq. 4).
    """

    trained = True
    schedule = SCHEDULE

    def __init__(self, base: Checkpoint, gamma: float, given: tuple[int, float]) -> None:
        self.base, self.right = base, gamma
        self.timestep, self.gamma = given

    def enhancer(self) -> Enhancer:
        enhancer = copy.deepcopy(self.base.enhancer())
        ratio = self.base.gamma / self.right
        with torch.no_grad():
            for name, factor in (("conv_in", ratio), ("conv_out", 1 / ratio)):
                layer = enhancer.unet.get_submodule(name)
                assert isinstance(layer, LoraLayer)
                layer.base_layer.weight.mul_(factor)
                layer.lora_B[ADAPTER].weight.mul_(factor)
            enhancer.unet.get_submodule("conv_out").base_layer.bias.mul_(1 / ratio)
        enhancer.timestep, enhancer.gamma = self.timestep, self.gamma
        enhancer.alpha_bar = alpha_bar(self.timestep, SCHEDULE, "")
        return enhancer


@pytest.fixture(scope="module")
def nano() -> Checkpoint:
    return make_checkpoint(WeightOptions("nano", *(None,) * 8))


@pytest.fixture(scope="module")
def recorded(nano: Checkpoint) -> Recorded:
    cases = make_cases(nano.preset)
    return cases, reference_outputs.record_reference(nano, cases, nullcontext)


@torch.no_grad()
def enhanced(checkpoint: Rescaled, recorded: Recorded) -> list[Outputs]:
    enhancer = checkpoint.enhancer()
    return [
        Outputs(z_l=out.z_l, z_h=enhancer(torch.from_numpy(known(out.z_l))).numpy())
        for out in recorded[1]
    ]


def test_the_trained_nano_raises_no_doubt(nano: Checkpoint, recorded: Recorded) -> None:
    figures = latent_check.judge(*recorded)
    assert latent_check.doubts(figures) == []
    assert latent_check.warning(nano, *recorded, nullcontext) is None
    for figure in figures:
        assert (figure.before == 0) == (figure.level == "clear")


@pytest.mark.parametrize("gamma", [3.0, 5.0])
def test_rescaling_is_exact(gamma: float, nano: Checkpoint, recorded: Recorded) -> None:
    same = enhanced(Rescaled(nano, gamma, (nano.timestep, gamma)), recorded)
    for mine, theirs in zip(same, recorded[1], strict=True):
        np.testing.assert_allclose(mine.z_h, theirs.z_h, rtol=0, atol=1e-4)


@pytest.mark.parametrize("right", [1.0, 3.0, 5.0])
def test_a_wrong_pair_is_noticed_and_the_right_one_named(
    right: float, nano: Checkpoint, recorded: Recorded
) -> None:
    wrong = Rescaled(nano, right, (999, 1.0))
    words = latent_check.warning(wrong, recorded[0], enhanced(wrong, recorded), nullcontext)
    assert words is not None
    assert "off with gamma 1 and timestep 999" in words
    assert f"fit --gamma {right:g} --timestep 1" in words


def test_random_weights_are_left_alone(nano: Checkpoint, recorded: Recorded) -> None:
    wrong = Rescaled(nano, 3.0, (999, 1.0))
    wrong.trained = False
    assert latent_check.warning(wrong, recorded[0], enhanced(wrong, recorded), nullcontext) is None


def test_figures_are_numpys(recorded: Recorded) -> None:
    cases, outputs = recorded
    figure, clear = latent_check.judge(cases, outputs)[2], outputs[0].z_l.astype(np.float64)
    assert figure.level == "LQ-2"
    assert figure.mean[1] == pytest.approx(outputs[2].z_h.mean())
    assert figure.spread[0] == pytest.approx(outputs[2].z_l.std(), rel=1e-5)
    difference = np.sqrt(((outputs[2].z_h - clear) ** 2).sum() / (clear**2).sum())
    assert figure.after == pytest.approx(difference)
