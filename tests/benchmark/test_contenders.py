"""PyTorch and plain exports as contenders, for SAM and SAM 2: results and operation counts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from glesam_benchmark import (
    contenders,
    operations,
    plain_export,
    plain_graphs,
    pytorch_chain,
    timing,
)
from glesam_benchmark.contenders import PlainRunner, PytorchRunner
from glesam_benchmark.timing import golden_inputs
from glesam_export.checkpoints import Checkpoint
from glesam_export.presets import sam_preset, unet_preset
from glesam_export.weight_options import WeightOptions
from glesam_runtime.bundle import load_golden, open_bundle
from glesam_runtime.compare import relative_l2
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import InputError

BEFORE = timing.LoadFacts(0.0, None)


def test_inputs_are_the_golden_files(nano_bundle: Path) -> None:
    bundle = open_bundle(nano_bundle)
    golden, given = load_golden(bundle), golden_inputs(bundle)
    np.testing.assert_array_equal(given.first["point_coords"][0], golden["point_coords"][0])
    np.testing.assert_array_equal(given.second["point_coords"][0], golden["point_coords"][-1])
    assert not np.array_equal(given.first["point_coords"], given.second["point_coords"])
    assert given.first["has_mask_input"].shape == (1,)
    assert given.image.shape == (1, 3, 256, 256)


@pytest.mark.parametrize("how", [{}, {"merged": True}])
def test_pytorch_computes_the_golden_masks(
    how: dict[str, bool], nano_bundle: Path, nano_checkpoint: Checkpoint
) -> None:
    given = golden_inputs(open_bundle(nano_bundle))
    loaded = pytorch_chain.load_pytorch_chain(
        nano_checkpoint, PytorchRunner(WeightOptions(), **how)
    )
    run, masks = timing.time_chain(loaded, given, 1, BEFORE)
    assert relative_l2(masks, given.expected) < 1e-5
    assert run.precision == "fp32"


def test_merged_adapters_are_not_computed_apart(nano_checkpoint: Checkpoint) -> None:
    enhancer = nano_checkpoint.enhancer()
    layer = enhancer.unet.conv_in
    x = torch.randn(1, 256, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = layer(x)
        pytorch_chain.merge_adapters(enhancer)
        layer.lora_A["default"].weight.fill_(float("nan"))
        assert relative_l2(layer(x), expected) < 1e-5


def test_sam2_has_peers_too(nano2_bundle: Path, nano2_checkpoint: Checkpoint) -> None:
    given = golden_inputs(open_bundle(nano2_bundle))
    loaded = pytorch_chain.load_pytorch_chain(nano2_checkpoint, PytorchRunner(WeightOptions()))
    assert relative_l2(timing.time_chain(loaded, given, 1, BEFORE)[1], given.expected) < 1e-5


@pytest.mark.full
def test_sam2_has_plain_exports_too(
    nano2_bundle: Path, nano2_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    bundle = open_bundle(nano2_bundle)
    given = golden_inputs(bundle)
    folder = tmp_path / "plain"
    assert not plain_graphs.holds_export(folder, bundle)
    plain_export.export_plain(nano2_checkpoint, bundle, given, folder)
    assert plain_graphs.holds_export(folder, bundle)
    assert not plain_graphs.holds_export(folder, open_bundle())
    exported = plain_graphs.load_plain_chain(PlainRunner(str(folder), "onnxruntime", threads=1))
    assert relative_l2(timing.time_chain(exported, given, 1, BEFORE)[1], given.expected) < 1e-5


def test_operations_of_full_size() -> None:
    """SAM ViT-B's encoder has 972 G operations, Stable Diffusion 2.1's U-Net 816 G."""
    found = operations.count_operations(sam_preset("sam_vit_b"), unet_preset("sd21"))
    assert found["encoder"] == pytest.approx(972e9, rel=1e-3)
    assert found["enhancer"] == pytest.approx(816e9, rel=1e-3)
    assert 1e9 < found["decoder"] < 10e9


def test_every_preset_is_counted() -> None:
    nano, nano2 = (
        operations.count_operations(sam_preset(n), unet_preset("nano")) for n in ("nano", "nano2")
    )
    assert nano["enhancer"] == nano2["enhancer"]
    assert all(count > 1e8 for found in (nano, nano2) for count in found.values())


def test_engines_asked_for() -> None:
    bundle, common = open_bundle(), RequestedEngine(precision="fp32", threads=2)
    found = contenders.bundle_contenders(bundle, ["openvino:bf16", "openvino", "auto"], common)
    choices = [contender.runner.choice for contender in found]
    assert [c.backend for c in choices] == ["openvino", "openvino", "auto"]
    assert [c.precision for c in choices] == ["bf16", "fp32", "fp32"]
    assert {c.threads for c in choices} == {2}
    here = [contender.name for contender in contenders.bundle_contenders(bundle, [], common)]
    assert here == ["onnxruntime", "openvino"]
    with pytest.raises(InputError, match="--backend ort: must be one of auto"):
        contenders.bundle_contenders(bundle, ["ort"], common)


@pytest.mark.full
def test_compiled_pytorch_computes_the_golden_masks(
    nano_bundle: Path, nano_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use torch.compile without its C++ compiler, which takes minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    given = golden_inputs(open_bundle(nano_bundle))
    loaded = pytorch_chain.load_pytorch_chain(
        nano_checkpoint, PytorchRunner(WeightOptions(), compiled=True)
    )
    run, masks = timing.time_chain(loaded, given, 1, BEFORE)
    assert relative_l2(masks, given.expected) < 1e-4
    assert run.first_seconds > 10 * run.rounds[0]["end_to_end"]
