"""A SAM 2 bundle: its graphs and their types, its manifest, its golden tensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from glesam_export import emulate, precision, stages
from glesam_export.build import Options
from glesam_export.precision import DTYPES, Float32
from glesam_runtime import GleSamPredictor, manifest_file
from glesam_runtime.bundle import load_golden, open_bundle
from glesam_runtime.compare import relative_l2
from glesam_runtime.errors import BundleError
from glesam_runtime.manifest import STAGES, PrecisionName, StageName
from glesam_runtime.selftest import run_selftest

from ..traced import Traced
from .conftest import random_nano2

BANNED = {"OneHot", "If", "Loop", "NonZero", "ScatterND", "TopK"}
FEATURES = ("image_embeddings", "high_res_feats_0", "high_res_feats_1")


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_graphs_are_free_of_what_engines_reject(nano2_bundle: Path) -> None:
    for stage in STAGES:
        model = onnx.load(open_bundle(nano2_bundle).graph_path(stage))
        onnx.checker.check_model(model, full_check=True)
        assert not BANNED & {node.op_type for node in model.graph.node}


def test_manifest_golden_and_selftest(nano2_bundle: Path) -> None:
    bundle = open_bundle(nano2_bundle)
    manifest = bundle.manifest
    assert manifest.model.family == "sam2"
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert {"sam2", "torch"} <= set(manifest.provenance.tools)
    golden = load_golden(bundle)
    expected = random_nano2().encoder()
    assert golden["high_res_feats_0"].shape == (1, 32, 64, 64)
    assert golden["high_res_feats_1"].shape == (1, 64, 32, 32)
    predictor = GleSamPredictor(bundle, enhance=False)
    predictor.set_image(golden["image"].astype(np.uint8))
    assert relative_l2(predictor.get_image_embedding(), golden["image_embeddings"]) < 1e-5
    assert expected.no_mem_embed.abs().max() > 0
    result = run_selftest(bundle)
    assert result.passed
    assert {error.output for error in result.errors} >= set(FEATURES)


def test_a_golden_file_without_the_features_is_refused(nano2_bundle: Path, tmp_path: Path) -> None:
    import shutil

    from msgspec.structs import replace
    from safetensors.numpy import load_file, save_file

    from glesam_runtime.bundle import file_ref

    folder = Path(shutil.copytree(nano2_bundle, tmp_path / "b"))
    golden = folder / "golden.safetensors"
    tensors = load_file(golden)
    del tensors["high_res_feats_1"]
    save_file(tensors, golden)
    changed = replace(open_bundle(nano2_bundle).manifest, golden=file_ref(golden))
    (folder / "manifest.json").write_bytes(manifest_file.dump(changed))
    with pytest.raises(BundleError, match="lacks high_res_feats_1"):
        load_golden(open_bundle(folder))


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("preprocessing", {"pad": "right_bottom"}, "resize 'square' contradicts pad"),
        ("preprocessing", {"image_size": 272}, "272 is not a multiple of 32"),
        (
            "postprocessing",
            {"stability": None},
            "single_mask 'first_if_stable' needs a 'stability'",
        ),
        ("model", {"family": "sam"}, "encoder declares .*high_res_feats_0"),
    ],
)
def test_a_manifest_that_contradicts_itself(
    part: str, change: dict[str, object], words: str, nano2_bundle: Path
) -> None:
    document = json.loads((nano2_bundle / "manifest.json").read_bytes())
    document[part] |= change
    with pytest.raises(BundleError, match=words):
        manifest_file.parse(json.dumps(document).encode(), "here")


@pytest.mark.parametrize("prompts", [1, 7])
@pytest.mark.parametrize("clicks", [0, 1, 15])
def test_decoder_takes_any_number_of_prompts_and_points(
    prompts: int, clicks: int, nano2_bundle: Path
) -> None:
    generator = torch.Generator().manual_seed(prompts + clicks)
    tokens = clicks + 1 if clicks else 0
    coords = torch.rand(prompts, tokens, 2, generator=generator) * 256
    labels = torch.ones(prompts, tokens)
    coords[:, clicks:], labels[:, clicks:] = 0, -1
    inputs = {
        "image_embeddings": torch.randn(1, 256, 16, 16, generator=generator),
        "high_res_feats_0": torch.randn(1, 32, 64, 64, generator=generator),
        "high_res_feats_1": torch.randn(1, 64, 32, 32, generator=generator),
        "point_coords": coords,
        "point_labels": labels,
        "mask_input": torch.randn(prompts, 1, 64, 64, generator=generator),
        "has_mask_input": torch.tensor([0.0 if clicks else 1.0]),
    }
    with torch.no_grad():
        masks, iou = random_nano2().decoder()(**inputs)
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
    found_masks, found_iou = session(open_bundle(nano2_bundle).graph_path("decoder")).run(
        None, feeds
    )
    assert found_masks.shape == (prompts, 4, 64, 64)
    assert relative_l2(found_masks, masks.numpy()) < 1e-5
    assert relative_l2(found_iou, iou.numpy()) < 1e-5


def test_encoder_takes_any_number_of_images(traced: Traced, tmp_path: Path) -> None:
    images = torch.randn(3, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = random_nano2().encoder()(images)
    stage = traced.export_stage(random_nano2(), "encoder", "fp32", "dynamic", tmp_path)
    runner = session(tmp_path / stage.graph.file)
    for size in (1, 3):
        found = runner.run(list(FEATURES), {"image": images[:size].numpy()})
        for made, reference in zip(found, wanted, strict=True):
            assert relative_l2(made, reference[:size].numpy()) < 1e-5


@pytest.mark.parametrize("half", ["fp16", "bf16"])
@pytest.mark.parametrize("stage", ["encoder", "decoder"])
def test_everything_but_islands_is_half(stage: StageName, half: PrecisionName) -> None:
    graph = stages.graph(random_nano2(), stage)
    kinds = precision.island_kinds(stage, half)
    wanted = sum(isinstance(module, kinds) for module in graph.modules())
    precision.cast_graph(graph, stage, half)
    islands = [name for name, m in graph.named_modules() if isinstance(m, Float32)]
    assert len(islands) == wanted > 0
    norms = [m for m in graph.modules() if type(m).__name__ in ("LayerNorm", "LayerNorm2d")]
    assert {norm.weight.dtype for norm in norms} == {torch.float32}
    for name, tensor in graph.state_dict().items():
        inside = any(name.startswith(f"{island}.") for island in islands)
        assert tensor.dtype == (torch.float32 if inside else DTYPES[half]), name


@pytest.mark.parametrize("half", ["fp16", pytest.param("bf16", marks=pytest.mark.full)])
@pytest.mark.parametrize("stage", ["encoder", "decoder"])
def test_a_half_precision_graph_takes_and_gives_float32(
    stage: StageName, half: PrecisionName, traced: Traced, tmp_path: Path
) -> None:
    path = tmp_path / traced.export_stage(random_nano2(), stage, half, 1, tmp_path).graph.file
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    borders = [*model.graph.input, *model.graph.output]
    assert {v.type.tensor_type.elem_type for v in borders} == {onnx.TensorProto.FLOAT}
    if stage == "encoder":
        _emulated_stays_near(path, tmp_path)


def _emulated_stays_near(path: Path, folder: Path) -> None:
    """Check that emulated half precision gives all three outputs, close to the reference."""
    import onnx_ir

    model = onnx_ir.load(path)
    emulate.to_float32(model.graph)
    onnx_ir.save(model, folder / "wide.onnx")
    image = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    found = session(folder / "wide.onnx").run(list(FEATURES), {"image": image.numpy()})
    with torch.no_grad():
        wanted = random_nano2().encoder()(image)
    for made, reference in zip(found, wanted, strict=True):
        assert 1e-5 < relative_l2(made, reference.numpy()) < 2e-2


def test_a_static_batch_encodes_one_image(
    tmp_path: Path, nano2_bundle: Path, traced: Traced
) -> None:
    """Check that a batch of 2 is filled with zeros, and its outputs are cut to the one image."""
    traced.build_bundle(random_nano2(), tmp_path / "b", Options(batch=2))
    image = load_golden(open_bundle(nano2_bundle))["image"].astype(np.uint8)
    found = []
    for folder in (tmp_path / "b", nano2_bundle):
        predictor = GleSamPredictor(folder)
        predictor.set_image(image)
        found.append(predictor.predict([[40, 30]], [1], return_logits=True)[0])
    assert relative_l2(found[0], found[1]) < 1e-4
