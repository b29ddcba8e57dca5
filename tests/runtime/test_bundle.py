"""An altered bundle is refused before an engine sees it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from glesam_runtime import (
    BackendError,
    BundleError,
    GleSamPredictor,
    open_bundle,
    run_selftest,
)
from glesam_runtime import bundle as bundle_module
from glesam_runtime.bundle import GOLDEN_TENSORS, load_golden, require_own_weights, sha256_of


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rehash(folder: Path, stage: str) -> None:
    """Make the manifest agree with an altered graph, as an attacker would."""
    path = folder / f"{stage}.onnx"

    def change(manifest: dict[str, Any]) -> None:
        ref = manifest["stages"][stage]["graph"]
        ref["bytes"], ref["sha256"] = path.stat().st_size, sha256_of(path)

    edit(folder, change)


def test_a_good_bundle_opens(toy_bundle: Path) -> None:
    bundle = open_bundle(toy_bundle)
    assert bundle.graph_path("decoder") == toy_bundle / "decoder.onnx"
    assert bundle.sha256 == sha256_of(toy_bundle / "manifest.json")
    assert load_golden(bundle).keys() == GOLDEN_TENSORS


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle folder"):
        open_bundle(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="not a bundle folder"):
        open_bundle(tmp_path / "file")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        open_bundle(tmp_path)


def test_the_built_in_bundle_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "builtin_bundle_path", lambda: tmp_path / "nano")
    with pytest.raises(BundleError, match="glesam-export onnx --preset nano"):
        open_bundle()


@pytest.mark.parametrize("file", ["encoder.onnx", "enhancer.onnx", "golden.safetensors"])
def test_a_flipped_byte(file: str, toy_copy: Path) -> None:
    path = toy_copy / file
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BundleError, match=f"{file}: altered"):
        open_bundle(toy_copy)


def test_a_missing_or_longer_file(toy_copy: Path) -> None:
    path = toy_copy / "decoder.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"decoder\.onnx: \d+ bytes, the manifest says"):
        open_bundle(toy_copy)
    path.unlink()
    with pytest.raises(BundleError, match=r"decoder\.onnx: missing"):
        open_bundle(toy_copy)


def in_a_cache(folder: Path) -> None:
    """Replace every file by a link to a blob in another folder, as Hugging Face's cache does."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for path in sorted(folder.iterdir()):
        blob = blobs / sha256_of(path)
        path.rename(blob)
        path.symlink_to(Path("..") / "blobs" / blob.name)


def on_a_volume(folder: Path) -> None:
    """Replace every file by a link into a hidden folder, as a Kubernetes volume does."""
    paths = sorted(folder.iterdir())
    (folder / "..2026").mkdir()
    (folder / "..data").symlink_to("..2026")
    for path in paths:
        path.rename(folder / "..2026" / path.name)
        path.symlink_to(Path("..data") / path.name)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("change", [in_a_cache, on_a_volume])
def test_a_bundle_of_links_runs(
    change: Callable[[Path], None], backend: str, toy_copy: Path, toy_bundle: Path, photo: Any
) -> None:
    change(toy_copy)
    assert all(path.is_symlink() for path in toy_copy.iterdir() if path.name[0] != ".")
    linked, real = (GleSamPredictor(each, backend=backend) for each in (toy_copy, toy_bundle))
    for predictor in (linked, real):
        predictor.set_image(photo)
    assert (linked.get_image_embedding() == real.get_image_embedding()).all()
    assert run_selftest(linked.bundle, backend).passed
    require_own_weights(linked.bundle)
    target = (toy_copy / "decoder.onnx").resolve()
    target.write_bytes(target.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match=r"decoder\.onnx: altered"):
        open_bundle(toy_copy)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("none.onnx", "missing"),
        ("decoder.onnx", "cannot be read"),
        ("..", "missing"),
        ("/dev/zero", "missing"),
        ("encoder.onnx", r"\d+ bytes, the manifest says|altered"),
    ],
)
def test_links_that_lead_to_no_such_file(target: str, words: str, toy_copy: Path) -> None:
    path = toy_copy / "decoder.onnx"
    path.unlink()
    path.symlink_to(target)
    with pytest.raises(BundleError, match=rf"decoder\.onnx: ({words})"):
        open_bundle(toy_copy)


def with_external_data(folder: Path) -> None:
    """Move the encoder's weights into a file of their own."""
    path = folder / "encoder.onnx"
    model = onnx.load(path)
    path.unlink()
    onnx.save(
        model, path, save_as_external_data=True, location="encoder.onnx.data", size_threshold=0
    )
    data = folder / "encoder.onnx.data"
    ref = {"file": data.name, "bytes": data.stat().st_size, "sha256": sha256_of(data)}
    rehash(folder, "encoder")
    edit(folder, _set("stages", "encoder", "data", to=ref))


@pytest.mark.parametrize("change", [in_a_cache, on_a_volume])
def test_external_data_behind_links(change: Callable[[Path], None], toy_copy: Path) -> None:
    """OpenVINO refuses weights outside the graph's folder: the error says what to do."""
    with_external_data(toy_copy)
    change(toy_copy)
    assert run_selftest(open_bundle(toy_copy), "onnxruntime").passed
    if change is on_a_volume:
        assert run_selftest(open_bundle(toy_copy), "openvino").passed
        return
    with pytest.raises(BackendError, match=r"encoder\.onnx\.data is a link to another.*cp -rL"):
        GleSamPredictor(toy_copy, backend="openvino")
    with pytest.raises(BundleError, match=r"encoder\.onnx\.data: is a link to another.*cp -rL"):
        require_own_weights(open_bundle(toy_copy))
    assert GleSamPredictor(toy_copy).engine.name == "onnxruntime"
    # External data that the manifest does not declare is refused behind links too.
    manifest_path = toy_copy / "manifest.json"
    manifest = json.loads(manifest_path.read_bytes())
    del manifest["stages"]["encoder"]["data"]
    manifest_path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"takes weights from 'encoder\.onnx\.data'"):
        open_bundle(toy_copy)


def _set(*keys: str, to: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        place = manifest
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return change


def _swap_axis(manifest: dict[str, Any]) -> None:
    manifest["stages"]["encoder"]["outputs"][0]["shape"][1] = 128


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a newer version": (_set("version", to=2), "version 2.*upgrade glesam-runtime"),
    "an older version": (_set("version", to=0), "version 0.*export"),
    "another format": (_set("format", to="zip"), "not a bundle"),
    "a missing stage": (lambda m: m["stages"].pop("enhancer"), "'enhancer' is missing"),
    "a stage more": (_set("stages", "upscaler", to={}), "Invalid enum value 'upscaler'"),
    "a missing field": (lambda m: m.pop("coordinates"), "coordinates"),
    "another shape": (_swap_axis, "encoder declares"),
    "another size": (_set("preprocessing", "image_size", to=128), "the contract says"),
    "an odd size": (_set("preprocessing", "image_size", to=70), "multiple of 16"),
    "a file above": (_set("stages", "encoder", "graph", "file", to="../e.onnx"), "file"),
    "an absolute file": (_set("stages", "encoder", "graph", "file", to="/etc/passwd"), "file"),
    "a line break": (_set("golden", "file", to="golden.x\n"), "golden.file"),
    "a hidden file": (_set("golden", "file", to=".golden"), "file"),
    "a file named twice": (_set("golden", "file", to="encoder.onnx"), "twice"),
    "the manifest itself": (_set("golden", "file", to="manifest.json"), "twice"),
    "a hash of another length": (_set("golden", "sha256", to="00"), "sha256"),
    "a feature": (_set("requires", to=["levels"]), "requires 'levels'.*upgrade glesam-runtime"),
    "another order": (_set("coordinates", "order", to="yx"), "Invalid enum value 'yx'"),
    "another space": (_set("coordinates", "space", to="pixels"), "Invalid enum value 'pixels'"),
    "another offset": (_set("coordinates", "pixel_offset", to=0.0), "pixel_offset must be 0.5"),
    "another label": (
        lambda m: m["coordinates"]["labels"].update(box_start=2),
        "labels must be background 0, foreground 1, box_top_left 2, box_bottom_right 3, padding -1",
    ),
    "a bad dtype": (lambda m: m["stages"]["decoder"]["inputs"][0].update(dtype="float16"), "dtype"),
    "a NaN": (_set("model", "gamma", to=None), "gamma"),
}


@pytest.mark.parametrize("name", EDITS)
def test_edited_manifests(name: str, toy_copy: Path) -> None:
    change, expected = EDITS[name]
    edit(toy_copy, change)
    with pytest.raises(BundleError, match=expected) as caught:
        open_bundle(toy_copy)
    assert "manifest.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"hello", b'{"a": 1}'])
def test_not_a_manifest(raw: bytes, toy_copy: Path) -> None:
    (toy_copy / "manifest.json").write_bytes(raw)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(toy_copy)


@pytest.mark.parametrize("location", ["../weights.data", "/etc/passwd", "encoder.onnx.data"])
def test_undeclared_external_data(location: str, toy_copy: Path) -> None:
    path = toy_copy / "encoder.onnx"
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    rehash(toy_copy, "encoder")
    with pytest.raises(BundleError, match="takes weights from"):
        open_bundle(toy_copy)


def test_declared_external_data_runs(toy_copy: Path, toy_bundle: Path, photo: Any) -> None:
    with_external_data(toy_copy)
    data = toy_copy / "encoder.onnx.data"
    split, whole = GleSamPredictor(toy_copy), GleSamPredictor(toy_bundle)
    for predictor in (split, whole):
        predictor.set_image(photo)
    assert (split.get_image_embedding() == whole.get_image_embedding()).all()
    raw = bytearray(data.read_bytes())
    raw[0] ^= 1
    data.write_bytes(raw)
    with pytest.raises(BundleError, match=r"encoder\.onnx\.data: altered"):
        open_bundle(toy_copy)


def test_a_graph_of_another_interface(toy_copy: Path) -> None:
    (toy_copy / "enhancer.onnx").write_bytes((toy_copy / "encoder.onnx").read_bytes())
    rehash(toy_copy, "enhancer")
    with pytest.raises(BackendError, match="inputs are image, the manifest says image_embeddings"):
        GleSamPredictor(toy_copy)


def test_a_graph_of_another_shape(toy_copy: Path) -> None:
    path = toy_copy / "encoder.onnx"
    model = onnx.load(path)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 128
        model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value = 8
    path.write_bytes(model.SerializeToString())
    rehash(toy_copy, "encoder")
    with pytest.raises(BackendError, match="image is tensor"):
        GleSamPredictor(toy_copy)


def test_a_graph_the_engine_cannot_load(toy_copy: Path) -> None:
    path = toy_copy / "encoder.onnx"
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    path.write_bytes(model.SerializeToString())
    rehash(toy_copy, "encoder")
    with pytest.raises(BackendError, match="onnxruntime cannot load it") as caught:
        GleSamPredictor(toy_copy)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_an_unreadable_file(toy_copy: Path) -> None:
    (toy_copy / "encoder.onnx").chmod(0)
    with pytest.raises(BundleError, match="cannot be read"):
        open_bundle(toy_copy)
