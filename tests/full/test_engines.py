"""TensorRT-RTX compiles full-size engines for GPUs that this machine does not have."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir
import pytest
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from glesam_calibration.attentions import attentions
from glesam_export import stages
from glesam_export.attention import for_tensorrt
from glesam_export.attention.joined_heads import join_heads
from glesam_export.engines import precision_check
from glesam_export.engines.compile import parse
from glesam_export.enhancer.reference import build_unet
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.backends.tensorrt_api import import_family
from glesam_runtime.bundle import open_bundle
from glesam_runtime.manifest import STAGES, PrecisionName, StageName

from ..full_size import assemble, random_weights, run_measured

if TYPE_CHECKING:
    from ..full_size import FullExport

pytestmark = pytest.mark.full

CAPABILITIES = ("8.9", "12.0")
KERNEL = rb"__global__ void (?:__launch_bounds__\([^)]*\) )?_gemm_mha"
PARSED = (
    *("sam_vit_l", "sam_vit_h"),
    *(f"sam2.1_hiera_{size}" for size in ("s", "b+", "l")),
)
"""SAM presets whose encoders are parsed. ViT-B and Hiera-T are compiled, nano in fast tests, and a
decoder is the same for every size of its family."""


def compiled(source: Path, folder: Path) -> dict[StageName, int]:
    """Compile a bundle by the command line; return the bytes of its engines by stage."""
    capabilities = (word for name in CAPABILITIES for word in ("--compute-capability", name))
    command = [sys.executable, "-m", "glesam_export", "trt", "--bundle", str(source)]
    command += ["--engine", "tensorrt-rtx", *capabilities, "-o", str(folder)]
    printed, seconds, peak = run_measured(command)
    print(f"{printed}{seconds:.0f} s, peak RSS {peak / 1e9:.2f} GB")
    manifest = open_bundle(folder).manifest
    assert manifest.target.build is not None
    assert manifest.target.build.compute_capabilities == CAPABILITIES
    return {stage: manifest.stages[stage].graph.bytes for stage in STAGES}


def fused(engine: Path) -> int:
    """Count the fused attention kernels of an RTX engine, which contains their source."""
    return len(re.findall(KERNEL, engine.read_bytes()))


def fusible_attentions(path: Path) -> int:
    """Count a graph's attentions with computed keys, after their heads are joined."""
    model = ir.load(path)
    join_heads(model.graph)
    RemoveUnusedNodesPass()(model)
    return sum(attention.has_computed_keys for attention in attentions(model.graph))


def test_sam(vit_b_export: FullExport, hiera_t16_export: FullExport, tmp_path: Path) -> None:
    """Check that fp16 halves ViT-B with SD 2.1, and that all fusible attentions are fused."""
    whole = compiled(vit_b_export.bundle, tmp_path / "fp32-engines")
    shutil.rmtree(tmp_path / "fp32-engines")
    bundle, engines = tmp_path / "fp16", tmp_path / "fp16-engines"
    enhancer, like = hiera_t16_export.bundle, vit_b_export.bundle
    assemble(bundle, random_weights("sam_vit_b"), "fp16", like=like, enhancer=enhancer)
    halved = compiled(bundle, engines)
    stage: StageName
    for stage in ("encoder", "enhancer"):
        wanted = fusible_attentions(bundle / f"{stage}.onnx")
        found = fused(engines / f"{stage}.engine")
        ratio = halved[stage] / whole[stage]
        print(f"{stage}: {found} fused attentions of {wanted}, fp16 engine {ratio:.3f} of fp32's")
        assert found == wanted
        assert 0.45 < ratio < 0.55


def test_sam2(hiera_t16_export: FullExport, tmp_path: Path) -> None:
    """Compile Hiera-T in fp16."""
    sizes = compiled(hiera_t16_export.bundle, tmp_path / "engines")
    assert sizes["enhancer"] > 1.5e9
    assert fused(tmp_path / "engines" / "encoder.engine") > 0


@pytest.mark.parametrize("preset", PARSED)
def test_encoder_parses(preset: str, tmp_path: Path) -> None:
    _parse(preset, "sd21", "encoder", tmp_path)


@pytest.mark.parametrize(("family", "least"), [("sam", "sam_vit_b"), ("sam2", "sam2.1_hiera_t")])
def test_a_familys_decoders_are_alike(family: str, least: str) -> None:
    shapes = {
        name: {k: v.shape for k, v in random_weights(name).decoder().state_dict().items()}
        for name in (least, *(name for name in PARSED if sam_preset(name).family == family))
    }
    assert len(shapes) > 2
    assert all(found == shapes[least] for found in shapes.values())


def test_the_other_u_net_parses_in_bf16(tmp_path: Path) -> None:
    """Check that it parses and is half the size; `make precision` checks the gates of bf16."""
    _parse("sam_vit_b", "sd15", "enhancer", tmp_path, "bf16")
    with torch.device("meta"):
        weights = sum(each.numel() for each in build_unet(unet_preset("sd15")).parameters())
    assert (tmp_path / "enhancer.onnx.data").stat().st_size < 0.51 * 4 * weights


def _parse(
    preset: str, unet: str, stage: StageName, folder: Path, precision: PrecisionName = "fp16"
) -> None:
    """Export a stage in half precision, rewrite it as for a build, and parse it."""
    api, checkpoint = import_family("tensorrt-rtx"), random_weights(preset, unet)
    stages.export_stage(checkpoint, stage, precision, 1, folder)
    scratch = folder / "rewritten"
    scratch.mkdir()
    graph, changes = for_tensorrt.write_fusible(folder / f"{stage}.onnx", scratch, precision)
    parsed = parse(api, graph)
    found = precision_check.network_precisions(parsed.definition)
    precision_check.require_precision(found, precision, stage)
    print(f"{preset} {unet} {stage}: {dict(found)} {'; '.join(changes)}")


def test_sam2_presets_are_the_architectures_of_2_1() -> None:
    for size in ("t", "s", "b+", "l"):
        old, new = sam_preset(f"sam2_hiera_{size}"), sam_preset(f"sam2.1_hiera_{size}")
        assert dataclasses.replace(old, name=new.name, release="2.1") == new
