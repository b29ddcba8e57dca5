"""Files for other tools give the masks of segment_anything's ONNX export and of the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from torch.nn import functional

from glesam_calibration import graph_files
from glesam_export.console_output import step
from glesam_export.interop import decoder_graph
from glesam_export.interop.tools import TOOLS
from glesam_export.interop.write import write_for_tool
from glesam_runtime import GleSamPredictor, sample_image
from glesam_runtime.bundle import builtin_bundle_path, open_bundle
from glesam_runtime.compare import mask_iou, relative_l2
from glesam_runtime.errors import ParityError

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

TOLERANCE = 1e-5
BUILTIN = builtin_bundle_path()
Files = Callable[..., Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return a function that writes files for a tool, once for each set of arguments."""
    made: dict[tuple[Any, ...], Path] = {}

    def write(tool: Any, bundle: Path = BUILTIN, **options: Any) -> Path:
        key = (tool, bundle, *options.values())
        if key not in made:
            made[key] = tmp_path_factory.mktemp(tool) / "files"
            write_for_tool(open_bundle(bundle), made[key], tool, step, **options)
        return made[key]

    return write


@pytest.fixture(scope="module")
def sam() -> Sam:
    """Return segment_anything's model with the weights of the built-in nano."""
    from glesam_export.families.sam.reference import build_sam
    from glesam_export.weight_options import WeightOptions
    from glesam_export.weights import make_checkpoint

    checkpoint = make_checkpoint(WeightOptions("nano", None, *(None,) * 7))
    decoder = checkpoint.decoder()
    return build_sam(checkpoint.encoder(), decoder.prompt_encoder, decoder.mask_decoder)


@pytest.fixture(scope="module")
def predictor() -> GleSamPredictor:
    predictor = GleSamPredictor()
    predictor.set_image(sample_image())
    return predictor


def run(path: Path, feeds: dict[str, Any]) -> list[np.ndarray]:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)


def metas_inputs(points: int, size: tuple[int, int], side: int, has_mask: float) -> dict[str, Any]:
    """Return prompts of this many points, the last of which is padding."""
    random = np.random.default_rng(points)
    labels = np.ones((1, points), np.float32)
    labels[0, -1] = -1
    return {
        "point_coords": random.uniform(0, 180, (1, points, 2)).astype(np.float32),
        "point_labels": labels,
        "mask_input": random.normal(0, 4, (1, 1, side, side)).astype(np.float32),
        "has_mask_input": np.asarray([has_mask], np.float32),
        "orig_im_size": np.asarray(size, np.float32),
    }


@pytest.mark.parametrize("masks", ["one", "four"])
@pytest.mark.parametrize(
    ("points", "size", "has_mask"),
    [(2, (383, 512), 0.0), (3, (700, 310), 1.0), (4, (64, 64), 0.0), (2, (31, 997), 1.0)],
)
def test_metas_decoder_as_segment_anything_exports_it(
    masks: str,
    points: int,
    size: tuple[int, int],
    has_mask: float,
    files: Files,
    sam: Sam,
    predictor: GleSamPredictor,
) -> None:
    from segment_anything.utils.onnx import SamOnnxModel

    oracle = SamOnnxModel(sam, return_single_mask=masks == "one")
    embedding = predictor.get_embedding().features["image_embeddings"]
    inputs = metas_inputs(points, size, 64, has_mask)
    feeds = {"image_embeddings": embedding, **inputs}
    wanted = oracle(**{name: torch.from_numpy(np.array(value)) for name, value in feeds.items()})
    found = run(files("meta", masks=masks) / "decoder.onnx", feeds)
    assert found[0].shape == (1, 1 if masks == "one" else 4, *size)
    for mine, theirs in zip(found, wanted, strict=True):
        assert relative_l2(mine, theirs.numpy()) <= TOLERANCE
    assert mask_iou(found[0] > 0, wanted[0].numpy() > 0) >= 0.9999


def test_metas_encoder_gives_the_predictors_enhanced_embedding(
    files: Files, sam: Sam, predictor: GleSamPredictor
) -> None:
    from segment_anything import SamPredictor

    theirs = SamPredictor(sam)
    resized = theirs.transform.apply_image(sample_image())
    image = sam.preprocess(torch.from_numpy(resized.transpose(2, 0, 1)).float()[None]).numpy()
    (found,) = run(files("meta") / "encoder.onnx", {"image": image})
    wanted = predictor.get_embedding().features["image_embeddings"]
    assert relative_l2(found, wanted) <= TOLERANCE


def test_images_of_any_size_are_normalised_padded_and_scaled_in_the_graph(
    files: Files, sam: Sam, predictor: GleSamPredictor
) -> None:
    folder = files("anylabeling")
    image = np.asarray(Image.fromarray(sample_image()).resize((1024, 640)), np.float32)
    (found,) = run(folder / "encoder.onnx", {"input_image": image})
    sam_size = sam.image_encoder.img_size
    normalised = (torch.from_numpy(image).permute(2, 0, 1)[None] - sam.pixel_mean) / sam.pixel_std
    square = functional.pad(normalised, (0, 0, 0, 1024 - 640))
    small = functional.interpolate(
        square, (sam_size, sam_size), mode="bilinear", antialias=True, align_corners=False
    )
    (wanted,) = run(files("meta") / "encoder.onnx", {"image": small.numpy()})
    assert relative_l2(found, wanted) <= TOLERANCE


@pytest.mark.parametrize("tool", ["labelme", "samexporter"])
def test_prompts_in_a_square_of_1024_and_osams_minus_one_for_no_mask(
    tool: str, files: Files, predictor: GleSamPredictor
) -> None:
    # labelme's points are in pixels of the encoder's input, samexporter's in a square of 1,024.
    size = predictor.geometry.original
    factor = (256 if tool == "labelme" else 1024) / max(size)
    point = np.asarray([[445.0, 135.0]])
    feeds = {
        "image_embeddings": predictor.get_embedding().features["image_embeddings"],
        "point_coords": np.concatenate([point * factor, [[0, 0]]])[None].astype(np.float32),
        "point_labels": np.asarray([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.asarray([-1 if tool == "labelme" else 0], np.float32),
        "orig_im_size": np.asarray(size, np.float32),
    }
    masks, scores, _ = run(files(tool) / "decoder.onnx", feeds)
    wanted, wanted_scores, _ = predictor.predict(point, np.ones(1), multimask_output=True)
    best = int(np.argmax(wanted_scores))
    assert scores[0, 0] == pytest.approx(wanted_scores[best], abs=1e-4)
    assert mask_iou(masks[0, 0] > 0, wanted[best]) >= 0.999


@pytest.mark.parametrize("tool", ["samexporter", "labelme"])
def test_sam2_split_with_high_resolution_features(
    tool: str, files: Files, nano2_bundle: Path
) -> None:
    predictor = GleSamPredictor(nano2_bundle)
    image = sample_image()
    predictor.set_image(image)
    folder = files(tool, nano2_bundle)
    from glesam_runtime.image import preprocess

    prepared = preprocess(image, predictor.bundle.manifest.preprocessing)
    session = ort.InferenceSession(str(folder / "encoder.onnx"))
    outputs = session.run(None, {session.get_inputs()[0].name: prepared.tensor})
    features = predictor.get_embedding().features
    order = {
        "samexporter": ["high_res_feats_0", "high_res_feats_1", "image_embeddings"],
        "labelme": ["image_embeddings", "high_res_feats_0", "high_res_feats_1"],
    }[tool]
    for found, name in zip(outputs, order, strict=True):
        assert relative_l2(found, features[name]) <= TOLERANCE
    decoder = ort.InferenceSession(str(folder / "decoder.onnx"))
    names = [each.name for each in decoder.get_inputs()]
    assert (
        names[:3]
        == {
            "samexporter": ["image_embed", "high_res_feats_0", "high_res_feats_1"],
            "labelme": ["image_embeddings", "high_res_features1", "high_res_features2"],
        }[tool]
    )
    height, width = image.shape[:2]
    size = prepared.geometry.image_size
    point = np.asarray([[445.0, 135.0]])
    side = 256 if tool == "labelme" else size // 4
    given = [
        *(outputs[order.index(name)] for name in ("image_embeddings", *sorted(order)[:2])),
        (point * (size / width, size / height))[None].astype(np.float32),
        np.ones((1, 1), np.float32),
        np.zeros((1, 1, side, side), np.float32),
        np.zeros(1, np.float32),
    ]
    given += [np.asarray([height, width])] if tool == "labelme" else []
    masks, scores, *low_res = decoder.run(None, dict(zip(names, given, strict=True)))
    wanted, wanted_scores, wanted_low_res = predictor.predict(point, np.ones(1))
    np.testing.assert_allclose(scores[0], wanted_scores, atol=1e-4)
    logits = low_res[0] if low_res else masks
    # The predictor limits the logits that it returns.
    assert relative_l2(np.clip(logits[0], -32, 32), wanted_low_res) <= 1e-4
    if low_res:
        assert mask_iou(masks[0] > 0, wanted) >= 0.999


def test_fixed_points_and_half_precision(files: Files, nano16_bundle: Path) -> None:
    interface = TOOLS["meta"].families["sam"]
    graph = decoder_graph.build_decoder(open_bundle(), interface, "one", points=5).graph
    shapes = {value.name: str(value.shape) for value in graph.inputs}
    assert shapes["point_coords"] == "[num_prompts,5,2]"
    assert shapes["point_labels"] == "[num_prompts,5]"
    record = json.loads((files("anylabeling", nano16_bundle) / "interop.json").read_text())
    assert record["gate"]["stage_relative_l2"] == 2e-2
    assert record["bundle"] == open_bundle(nano16_bundle).sha256
    assert 0 < record["measured"]["encoder_relative_l2"] < 2e-2


def test_configuration_files(files: Files) -> None:
    folder = files("anylabeling")
    text = (folder / "anylabeling.yaml").read_text()
    for line in ('type: "segment_anything"', 'encoder_model_path: "encoder.onnx"'):
        assert line in text.splitlines()
    assert (folder / "x-anylabeling.yaml").read_text() == text
    compile((files("labelme") / "labelme_glesam.py").read_text(), "launcher", "exec")


def test_large_weights_lie_beside_their_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_files, "EXTERNAL_DATA_FROM", 1 << 20)
    write_for_tool(open_bundle(), tmp_path / "out", "rembg", step)
    made = sorted(path.name for path in (tmp_path / "out" / "models" / "sam").iterdir())
    stages = [f"sam_vit_b_01ec64.{stage}.onnx" for stage in ("decoder", "encoder")]
    assert made == [stages[0], f"{stages[0]}.data", stages[1], f"{stages[1]}.data"]


def test_graphs_outside_the_gate_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_graph, "_FEW_POINTS", 9.5)  # selects another mask for boxes
    with pytest.raises(ParityError, match=r"out for labelme: outside the bundle's gate: decoder"):
        write_for_tool(open_bundle(), tmp_path / "out", "labelme", step)
    assert list(tmp_path.iterdir()) == []


def refused(found: tuple[int, str, str], message: str) -> None:
    code, out, err = found
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1, err


def require_image_index(manifest: dict[str, Any]) -> None:
    manifest["requires"] = ["image_index"]
    decoder = manifest["stages"]["decoder"]["inputs"]
    decoder.append({"name": "image_index", "dtype": "float32", "shape": ["B"]})
    for spec in decoder:
        if spec["name"] == "image_embeddings":
            spec["shape"][0] = "I"


def test_every_error_is_one_line_and_nothing_is_written(
    glesam_export: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    nano2_bundle: Path,
    patched_manifest: Callable[..., Path],
) -> None:
    def export(bundle: object, tool: str, *options: object) -> tuple[int, str, str]:
        return glesam_export(
            "interop", bundle, "--for", tool, "-o", tmp_path / "out", *options, "-q"
        )

    refused(export(tmp_path / "absent", "meta"), "no such bundle folder")
    refused(export(BUILTIN, "paint"), "'paint' is not one of")
    refused(export(nano2_bundle, "rembg"), "rembg cannot run this bundle: its family is sam2")
    refused(export(nano2_bundle, "meta"), "its family is sam2, the tool supports sam")
    refused(export(nano2_bundle, "labelme", "--masks", "four"), "--masks does not apply to labelme")
    refused(export(BUILTIN, "rembg", "--points", "3"), "--points does not apply to rembg")
    for change, message in (
        (lambda m: m["preprocessing"].update(mean=[0, 0, 0]), "normalises images itself"),
        (lambda m: m["stages"]["decoder"].update(precision="bf16"), "no bf16 on CPUs"),
        (require_image_index, "requires image_index; export without --image-index"),
    ):
        refused(export(patched_manifest(change), "labelme"), message)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    refused(export(BUILTIN, "meta"), "out: exists; choose another folder")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.fixture
def patched_manifest(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the built-in bundle, by links, with another manifest."""

    def patch(change: Callable[[dict[str, Any]], object]) -> Path:
        folder = tmp_path / f"bundle{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for path in BUILTIN.iterdir():
            (folder / path.name).symlink_to(path)
        manifest = json.loads((BUILTIN / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return patch
