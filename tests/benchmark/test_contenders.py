"""PyTorch and plain exports in this process, SAM 2 too: what they compute, and what it takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from glesam_benchmark import chain, contenders, flops, plain, plain_cache, plain_chain, pytorch
from glesam_benchmark.contenders import Plain, Pytorch
from glesam_benchmark.inputs import golden_inputs
from glesam_export.checkpoints import Checkpoint
from glesam_export.presets import sam_preset, unet_preset
from glesam_export.weight_options import WeightOptions
from glesam_runtime.bundle import load_golden, open_bundle
from glesam_runtime.compare import relative_l2
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import InputError

BEFORE = chain.Before(0.0, None)


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
    loaded = pytorch.load(nano_checkpoint, Pytorch(WeightOptions(), **how))
    run, masks = chain.measure(loaded, given, 1, BEFORE)
    assert relative_l2(masks, given.expected) < 1e-5
    assert run.precision == "fp32"


def test_merged_adapters_are_not_computed_apart(nano_checkpoint: Checkpoint) -> None:
    enhancer = nano_checkpoint.enhancer()
    layer = enhancer.unet.conv_in
    x = torch.randn(1, 256, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = layer(x)
        pytorch.merge(enhancer)
        layer.lora_A["default"].weight.fill_(float("nan"))
        assert relative_l2(layer(x), expected) < 1e-5


def test_sam2_has_peers_too(
    nano2_bundle: Path, nano2_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    bundle = open_bundle(nano2_bundle)
    given = golden_inputs(bundle)
    loaded = pytorch.load(nano2_checkpoint, Pytorch(WeightOptions()))
    assert relative_l2(chain.measure(loaded, given, 1, BEFORE)[1], given.expected) < 1e-5
    folder = tmp_path / "plain"
    assert not plain_cache.is_there(folder, bundle)
    plain.export_plain(nano2_checkpoint, bundle, given, folder)
    assert plain_cache.is_there(folder, bundle)
    assert not plain_cache.is_there(folder, open_bundle())
    exported = plain_chain.load(Plain(str(folder), "onnxruntime", threads=1))
    assert relative_l2(chain.measure(exported, given, 1, BEFORE)[1], given.expected) < 1e-5


def test_operations_of_full_size() -> None:
    """SAM ViT-B's are 972 G in the encoder, 816 G in Stable Diffusion 2.1's U-Net."""
    found = flops.count(sam_preset("sam_vit_b"), unet_preset("sd21"))
    assert found["encoder"] == pytest.approx(972e9, rel=1e-3)
    assert found["enhancer"] == pytest.approx(816e9, rel=1e-3)
    assert 1e9 < found["decoder"] < 10e9


def test_every_preset_is_counted() -> None:
    nano, nano2 = (flops.count(sam_preset(n), unet_preset("nano")) for n in ("nano", "nano2"))
    assert nano["enhancer"] == nano2["enhancer"]
    assert all(count > 1e8 for found in (nano, nano2) for count in found.values())


def test_engines_asked_for() -> None:
    bundle, common = open_bundle(), RequestedEngine(precision="fp32", threads=2)
    found = contenders.ours(bundle, ["openvino:bf16", "openvino", "auto"], common)
    choices = [contender.runner.choice for contender in found]
    assert [c.backend for c in choices] == ["openvino", "openvino", "auto"]
    assert [c.precision for c in choices] == ["bf16", "fp32", "fp32"]
    assert {c.threads for c in choices} == {2}
    here = [contender.name for contender in contenders.ours(bundle, [], common)]
    assert here == ["onnxruntime", "openvino"]
    with pytest.raises(InputError, match="--backend ort: must be one of auto"):
        contenders.ours(bundle, ["ort"], common)


def test_compiled_pytorch_computes_the_golden_masks(
    nano_bundle: Path, nano_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captured as for any backend of torch.compile; its C++ compiler alone would take minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    given = golden_inputs(open_bundle(nano_bundle))
    loaded = pytorch.load(nano_checkpoint, Pytorch(WeightOptions(), compiled=True))
    run, masks = chain.measure(loaded, given, 1, BEFORE)
    assert relative_l2(masks, given.expected) < 1e-4
    assert run.first_seconds > 10 * run.rounds[0]["end_to_end"]
