"""A toy bundle: three tiny graphs that obey the contract, so that most tests need no export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec import UNSET
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from glesam_runtime import manifest as contract
from glesam_runtime import manifest_file
from glesam_runtime.bundle import file_ref, open_bundle
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import Manifest

SIZE = 64
LATENT, LOW_RES = SIZE // 16, SIZE // 4
OPSET = 18


def constant(name: str, values: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def toy_encoder(batch: int | str) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("AveragePool", ["image"], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Conv", ["p", "w", "b"], ["image_embeddings"]),
    ]
    weights = [
        constant("w", rng.normal(size=(256, 3, 1, 1))),
        constant("b", rng.normal(size=256)),
    ]
    return model("encoder", batch, nodes, weights)


def toy_enhancer(batch: int | str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Mul", ["image_embeddings", "k"], ["m"]),
        helper.make_node("Add", ["m", "a"], ["enhanced_embeddings"]),
    ]
    return model("enhancer", batch, nodes, [constant("k", 1.5), constant("a", 0.25)])


def toy_decoder(batch: int | str) -> onnx.ModelProto:
    """Return a decoder that adds a bump around each point to a map of the embeddings."""
    rng = np.random.default_rng(1)
    axis = (np.arange(LOW_RES) + 0.5) * 4
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(1, 1, -1, 2)
    nodes = [
        helper.make_node("Conv", ["image_embeddings", "w"], ["base"]),
        helper.make_node("Resize", ["base", "", "zoom"], ["wide"], mode="linear"),
        helper.make_node("Unsqueeze", ["point_coords", "two"], ["p"]),
        helper.make_node("Sub", ["grid", "p"], ["d"]),
        helper.make_node("Mul", ["d", "d"], ["dd"]),
        helper.make_node("ReduceSum", ["dd", "three"], ["r"], keepdims=0),
        helper.make_node("Mul", ["r", "slope"], ["e"]),
        helper.make_node("Exp", ["e"], ["bump"]),
        # labels -1, 0, 1, 2, 3 weigh 0, -1, 1, 1, 1
        helper.make_node("Relu", ["point_labels"], ["positive"]),
        helper.make_node("Clip", ["positive", "", "one"], ["capped"]),
        helper.make_node("Abs", ["point_labels"], ["far"]),
        helper.make_node("Clip", ["far", "", "one"], ["nonzero"]),
        helper.make_node("Sub", ["nonzero", "one"], ["minus"]),
        helper.make_node("Add", ["capped", "minus"], ["weight"]),
        helper.make_node("Unsqueeze", ["weight", "two"], ["weight3"]),
        helper.make_node("Mul", ["bump", "weight3"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "oneaxis"], ["bumps"], keepdims=0),
        helper.make_node("Reshape", ["bumps", "square"], ["hill"]),
        helper.make_node("Mul", ["mask_input", "has_mask_input"], ["mask"]),
        helper.make_node("Add", ["hill", "mask"], ["h1"]),
        helper.make_node("Mul", ["h1", "gain"], ["h2"]),
        helper.make_node("Add", ["wide", "h2"], ["low_res_masks"]),
        helper.make_node("ReduceMean", ["low_res_masks", "spatial"], ["mean"], keepdims=0),
        helper.make_node("Sigmoid", ["mean"], ["iou_predictions"]),
    ]

    def integers(name: str, *values: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(values, np.int64), name)

    weights = [
        constant("w", rng.normal(size=(4, 256, 1, 1)) / 64),
        constant("zoom", [1, 1, 4, 4]),
        constant("grid", grid),
        constant("slope", -1 / 128),
        constant("one", 1),
        constant("gain", np.asarray([4, 2, 4, 6]).reshape(1, 4, 1, 1)),
        integers("two", 2),
        integers("three", 3),
        integers("oneaxis", 1),
        integers("square", -1, 1, LOW_RES, LOW_RES),
        integers("spatial", 2, 3),
    ]
    return model("decoder", batch, nodes, weights)


def model(stage: contract.StageName, batch: int | str, nodes, weights) -> onnx.ModelProto:
    inputs, outputs = expected_interface(stage, SIZE, batch)

    def info(spec: contract.TensorSpec) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, spec.shape)

    graph = helper.make_graph(
        nodes, stage, [info(s) for s in inputs], [info(s) for s in outputs], weights
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(proto)
    return proto


GRAPHS = {"encoder": toy_encoder, "enhancer": toy_enhancer, "decoder": toy_decoder}


def write_toy_bundle(
    folder: Path,
    batch: int | str = 1,
    *,
    precision: contract.PrecisionName = "fp32",
    trained: bool = True,
    released: bool = False,
) -> Path:
    """Write a complete bundle whose golden file comes from running its own graphs.

    With `released` it has the released input.
    """
    folder.mkdir(parents=True)
    stages = {}
    for stage, build in GRAPHS.items():
        path = folder / f"{stage}.onnx"
        onnx.save(build(batch), path)
        inputs, outputs = expected_interface(stage, SIZE, batch)
        stages[stage] = contract.Stage(file_ref(path), precision, inputs, outputs)
    golden = folder / contract.GOLDEN_FILE
    save_file({"image": np.zeros((1, 1, 3), np.uint8)}, golden)
    first = contract.FirstResize(SIZE // 2, "pillow_bicubic")
    manifest = Manifest(
        format="glesam-bundle",
        version=1,
        requires=(contract.RELEASED_INPUT,) if released else UNSET,
        model=contract.Model("sam", "toy", "toy", trained, 5.0, 999, 0.0047),
        stages=stages,
        preprocessing=contract.Preprocessing(
            SIZE,
            "square" if released else "longest_side",
            "float_bilinear" if released else "pillow_bilinear",
            "RGB",
            (123.675, 116.28, 103.53),
            (58.395, 57.12, 57.375),
            "none" if released else "right_bottom",
            first if released else UNSET,
        ),
        postprocessing=contract.Postprocessing(
            "bilinear_direct" if released else "bilinear", 0.0, 1.0, "first"
        ),
        coordinates=contract.Coordinates(
            "xy",
            "resized_pixels",
            0.5,
            contract.PROMPT_LABELS,
            "two_points",
        ),
        target=contract.Target("onnx", OPSET, batch),
        provenance=contract.Provenance((), "random, seed 0", {}),
        parity=None,
        golden=file_ref(golden),
    )
    write_manifest(folder, manifest)
    save_file(run_golden(folder), golden)
    write_manifest(folder, with_golden(manifest, golden))
    return folder


def with_golden(manifest: Manifest, golden: Path) -> Manifest:
    import msgspec

    return msgspec.structs.replace(manifest, golden=file_ref(golden))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / contract.MANIFEST_FILE).write_bytes(manifest_file.dump(manifest))


def run_golden(folder: Path) -> dict[str, np.ndarray]:
    """Return the golden tensors that an exporter would write."""
    from glesam_runtime import chain
    from glesam_runtime.backends.loading import load_engine
    from glesam_runtime.image import preprocess
    from glesam_runtime.prompts import check_prompts, prompt_tensors

    bundle = open_bundle(folder)
    engine = load_engine(bundle, "onnxruntime")
    image = np.random.default_rng(2).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    prepared = preprocess(image, bundle.manifest.preprocessing)
    z_low = chain.encode(engine, bundle.manifest, prepared.tensor)
    z_high = chain.enhance(engine, bundle.manifest, z_low)
    prompts = check_prompts(prepared.geometry, [[[20, 30], [40, 10]]], [[1, 0]])
    tensors = prompt_tensors(prompts, prepared.geometry, bundle.manifest.coordinates)
    low_res, iou = chain.decode(engine, z_high, tensors)
    return {
        "image": image,
        "image_embeddings": engine.to_host(z_low["image_embeddings"]),
        "enhanced_embeddings": engine.to_host(z_high["image_embeddings"]),
        **tensors,
        "low_res_masks": low_res,
        "iou_predictions": iou,
    }


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a toy bundle that tests must not change. Tests that change one use `toy_copy`."""
    return write_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle")


@pytest.fixture
def toy_copy(toy_bundle: Path, tmp_path: Path) -> Path:
    """Return a toy bundle that the test may change."""
    import shutil

    return Path(shutil.copytree(toy_bundle, tmp_path / "toy"))


@pytest.fixture(scope="session")
def make_toy_bundle() -> Callable[..., Path]:
    """Return `write_toy_bundle`."""
    return write_toy_bundle


@pytest.fixture
def photo() -> np.ndarray:
    """Return a deterministic RGB image, uint8 [90, 120, 3]."""
    y, x = np.mgrid[0:90, 0:120]
    return np.stack([x * 2, y * 2, (x + y) % 256], axis=-1).astype(np.uint8)
