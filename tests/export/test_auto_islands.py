"""Modules are ranked by the error that an island removes, and become islands until all pass."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from glesam_export import build, precision, stages
from glesam_export.graphs import Graph
from glesam_export.island_ranking import rank
from glesam_export.verify.parity import require
from glesam_runtime import compare
from glesam_runtime.bundle import open_bundle
from glesam_runtime.errors import ParityError
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import STAGES, ImageParity, Parity, Stage, StageError, StageName

from ..traced import Traced
from .conftest import random_nano

LOUD = 1e7


class Overflowing:
    """A random nano with one attention whose values exceed 65504 but whose output does not.

    The weights of the values are multiplied by LOUD and those of the projection divided by it, so
    the result in float32 is nano's.
    """

    def __init__(self, block: int) -> None:
        self._nano = random_nano()
        self._block = block

    def __getattr__(self, name: str) -> object:
        return getattr(self._nano, name)

    def encoder(self) -> nn.Module:
        encoder = self._nano.encoder()
        attention = encoder.blocks[self._block].attn
        values = slice(2 * attention.qkv.out_features // 3, None)
        with torch.no_grad():
            attention.qkv.weight[values] *= LOUD
            attention.qkv.bias[values] *= LOUD
            attention.proj.weight /= LOUD
        return encoder


class Chain(Graph):
    """Three layers; the second overflows inside, and its two parts overflow in their outputs."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def layer(gain: float) -> nn.Linear:
            made = nn.Linear(16, 16, bias=False)
            made.weight.data = torch.randn(16, 16, generator=generator) * gain / 4
            return made

        self.first, self.last = layer(1.0), layer(1.0)
        self.loud = nn.Sequential(layer(1e6), layer(1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.loud(self.first(x)))


def test_the_overflow_is_worth_most_and_its_halves_nothing() -> None:
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    ranked = rank(Chain().eval(), (), torch.float16, [(x,)])
    assert ranked[0].name == "loud"
    assert ranked[0].error == float("inf")
    assert ranked[0].island_error < 1e-3
    assert not any(candidate.name.startswith("loud.") for candidate in ranked)
    assert {candidate.name for candidate in ranked[1:]} <= {"first", "last"}


def test_bfloat16_has_the_range_of_float32() -> None:
    """A value that overflows in float16 is only rounded in bfloat16."""
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    ranked = rank(Chain().eval(), (), torch.bfloat16, [(x,)])
    assert "loud" in [candidate.name for candidate in ranked]
    assert max(candidate.error for candidate in ranked) < 1e-2


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_can_be_ranked_and_typed(stage: StageName, tmp_path: Path) -> None:
    """Every candidate works as an island, also where SAM's decoder passes arguments by name."""
    checkpoint = random_nano()
    inputs, _ = expected_interface(stage, 256, 1)
    sizes = {"B": 2, "P": 3}
    generator = torch.Generator().manual_seed(0)
    call = tuple(
        torch.randn([sizes.get(str(a), a) for a in spec.shape], generator=generator)
        for spec in inputs
    )
    kinds = precision.island_kinds(stage, "bf16")
    ranked = rank(stages.graph(checkpoint, stage), kinds, torch.bfloat16, [call])
    assert len(ranked) > 5
    if stage == "decoder":
        assert any("cross_attn" in candidate.name for candidate in ranked)
    names = [candidate.name for candidate in ranked]
    errors = []
    with torch.no_grad():
        wanted = stages.graph(checkpoint, stage)(*call)
        for further in ((), names):
            graph = stages.graph(checkpoint, stage)
            precision.cast_graph(graph, stage, "bf16", further=further)
            found = graph(*call)
            pair = (found, wanted) if isinstance(found, torch.Tensor) else (found[0], wanted[0])
            errors.append(float((pair[0] - pair[1]).norm() / pair[1].norm()))
    assert errors[1] < errors[0]


def test_a_bundle_that_overflows_is_widened_until_it_passes(
    traced: Traced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Overflowing(block=3)
    spoken: list[str] = []

    def export_stage(given: object, stage: StageName, *form, **kind: bool) -> Stage:
        """Trace the encoder; enhancer and decoder are those of a random nano."""
        if stage == "encoder":
            return stages.export_stage(given, stage, *form, **kind)  # type: ignore[arg-type]
        return traced.export_stage(random_nano(), stage, *form, **kind)

    monkeypatch.setattr(build, "export_stage", export_stage)

    def step(what: str) -> nullcontext[None]:
        spoken.append(what)
        return nullcontext()

    options = build.Options("fp16", auto_islands=True)
    built = build.build_bundle(checkpoint, tmp_path / "b", options, step)  # type: ignore[arg-type]
    assert built.parity is not None
    assert built.parity.passed
    assert built.stages["encoder"].islands[-1] == "blocks.3.attention"
    assert built.stages["enhancer"].islands == plain_islands("enhancer")
    assert sum("more in float32" in words for words in spoken) == 1
    assert open_bundle(tmp_path / "b").manifest == built


def test_a_failure_says_that_islands_can_be_widened() -> None:
    gate = compare.GATES["fp16"]
    error = StageError(relative_l2=0.5, max_abs=1.0)
    image = ImageParity("scene", "clear", {"encoder": error}, 1.0, 1.0)
    parity = Parity("here", gate, False, (image,))
    with pytest.raises(ParityError, match=r"^b: outside its gate: scene clear encoder.*; do this$"):
        require(parity, "b", "do this")
    with pytest.raises(ParityError, match=r"exceeds 0.02$"):
        require(parity, "b")


def plain_islands(stage: str) -> tuple[str, ...]:
    return precision.islands(stage, "fp16", stages.presets_of(random_nano()))  # type: ignore[arg-type]
