"""The gate can fail, names the stage at fault, and prevents the bundle from being written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from glesam_export import build, fold, stages
from glesam_export.verify import reference_outputs
from glesam_export.verify.cases import Case, make_cases
from glesam_export.verify.parity import measure, require
from glesam_runtime.bundle import Bundle, file_ref, load_golden, open_bundle
from glesam_runtime.compare import relative_l2
from glesam_runtime.errors import ParityError
from glesam_runtime.manifest import MANIFEST_FILE, Stage, StageName
from glesam_runtime.manifest_file import dump, json_schema, parse
from glesam_runtime.selftest import run_selftest

from ..traced import Traced
from .conftest import random_nano

Reference = tuple[list[Case], list[reference_outputs.Outputs]]


def quiet(_: str) -> nullcontext[None]:
    return nullcontext()


@pytest.fixture(scope="module")
def reference(nano_bundle: Path) -> Reference:
    """Return one case and the reference's outputs for it."""
    cases = make_cases(random_nano().preset)[-1:]
    return cases, reference_outputs.record_reference(random_nano(), cases, quiet)


def unevenly(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """Scale every other weight, because a norm after the layer would undo a scale of all."""

    def change(weights: np.ndarray) -> np.ndarray:
        weights.reshape(-1)[::2] *= np.float32(factor)
        return weights

    return change


def spoiled(
    bundle: Path, folder: Path, stage: StageName, change: Callable, name: str = ""
) -> Bundle:
    """Copy a bundle, change one weight of one graph, and make the manifest fit.

    The weight is the largest of those whose name begins with `name`.
    """
    shutil.copytree(bundle, folder)
    opened = open_bundle(folder)
    path = opened.graph_path(stage)
    model = onnx.load(path)
    named = [weight for weight in model.graph.initializer if weight.name.startswith(name)]
    weight = max(named, key=lambda w: len(w.raw_data))
    values = numpy_helper.to_array(weight).copy()
    weight.CopyFrom(numpy_helper.from_array(change(values), weight.name))
    onnx.save(model, path)
    entry = msgspec.structs.replace(opened.manifest.stages[stage], graph=file_ref(path))
    manifest = msgspec.structs.replace(
        opened.manifest, stages={**opened.manifest.stages, stage: entry}
    )
    (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return open_bundle(folder)


def test_an_export_passes_and_says_so(nano_bundle: Path, reference: Reference) -> None:
    parity = measure(open_bundle(nano_bundle), *reference, quiet)
    assert parity.passed
    require(parity, "bundle")
    assert run_selftest(open_bundle(nano_bundle)).passed


@pytest.mark.parametrize("stage", ["encoder", "enhancer", "decoder"])
def test_one_wrong_weight_is_found_in_its_stage(
    stage: StageName, nano_bundle: Path, reference: Reference, tmp_path: Path
) -> None:
    bundle = spoiled(nano_bundle, tmp_path / "b", stage, unevenly(1.02))
    parity = measure(bundle, *reference, quiet)
    assert not parity.passed
    limit = parity.gate.stage_relative_l2
    assert limit is not None
    (image,) = parity.images
    outside = {name for name, error in image.errors.items() if error.relative_l2 > limit}
    assert outside <= ({"enhancer", "eps"} if stage == "enhancer" else {stage})
    assert outside
    with pytest.raises(ParityError, match="outside its gate"):
        require(parity, "bundle")
    assert not run_selftest(bundle).passed


@pytest.mark.parametrize("part", ["iou_head", "mask_downscaling", "points.frequencies"])
def test_every_input_and_output_of_the_decoder_is_judged(
    part: str, nano_bundle: Path, reference: Reference, tmp_path: Path
) -> None:
    """Check that errors in the IoU head, the mask prompt and the points are all found."""
    bundle = spoiled(nano_bundle, tmp_path / "b", "decoder", unevenly(1.02), part)
    parity = measure(bundle, *reference, quiet)
    with pytest.raises(ParityError, match="decoder"):
        require(parity, "bundle")


def test_eps_shows_what_the_enhanced_latent_hides(
    nano_bundle: Path, reference: Reference, tmp_path: Path
) -> None:
    """Check that eps shows an error that is lost in z_H, which is mostly z_L / sqrt(abar_T)."""
    bundle = spoiled(nano_bundle, tmp_path / "b", "enhancer", unevenly(1.002))
    (image,) = measure(bundle, *reference, quiet).images
    assert image.errors["enhancer"].relative_l2 < 1e-4
    assert image.errors["eps"].relative_l2 > 10 * image.errors["enhancer"].relative_l2


def test_a_nan_does_not_pass(nano_bundle: Path, reference: Reference, tmp_path: Path) -> None:
    bundle = spoiled(nano_bundle, tmp_path / "b", "encoder", unevenly(np.nan))
    parity = measure(bundle, *reference, quiet)
    assert not parity.passed
    # It can be written and read again, although JSON has no infinity.
    manifest = msgspec.structs.replace(bundle.manifest, parity=parity)
    assert parse(dump(manifest), "manifest").parity == parity


def test_a_manifest_of_another_preprocessing_is_refused(
    nano_bundle: Path, glesam_export: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Check the rules, because reference and bundle would both use wrong ones and agree."""
    bundle = spoiled(nano_bundle, tmp_path / "b", "encoder", lambda weights: weights)
    rules = msgspec.structs.replace(bundle.manifest.preprocessing, mean=(0.0, 0.0, 0.0))
    manifest = msgspec.structs.replace(bundle.manifest, preprocessing=rules)
    (bundle.path / MANIFEST_FILE).write_bytes(dump(manifest))
    code, out, err = glesam_export("verify", bundle.path, "--random-weights", 0)
    assert (code, out) == (2, "")
    assert "'preprocessing' differs from nano's" in err


@pytest.fixture(scope="module")
def wrong_enhancer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stage]:
    """Trace an enhancer whose fold has the wrong sign; it is not kept for other tests."""
    folder, whole = tmp_path_factory.mktemp("wrong"), fold.fold_gamma
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "fold_gamma", lambda unet, gamma: whole(unet, -gamma))
        return folder, stages.export_stage(random_nano(), "enhancer", "fp32", 1, folder)


@pytest.fixture
def failing(
    wrong_enhancer: tuple[Path, Stage], traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make every export use the wrong enhancer. No other stage depends on the fold."""
    made_in, wrong = wrong_enhancer

    def export_stage(checkpoint, stage: StageName, *form, **kind: bool) -> Stage:
        if stage != "enhancer":
            return traced.export_stage(checkpoint, stage, *form, **kind)
        shutil.copyfile(made_in / wrong.graph.file, form[-1] / wrong.graph.file)
        return wrong

    monkeypatch.setattr(build, "export_stage", export_stage)


@pytest.mark.usefixtures("failing")
def test_a_bundle_outside_its_gate_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="eps"):
        build.build_bundle(random_nano(), tmp_path / "b", build.Options(), quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("failing")
def test_unless_asked_for(tmp_path: Path) -> None:
    options = build.Options(allow_parity_failure=True)
    build.build_bundle(random_nano(), tmp_path / "b", options, quiet)
    parity = open_bundle(tmp_path / "b").manifest.parity
    assert parity is not None
    assert not parity.passed


def test_manifest_is_the_published_schemas(nano_bundle: Path) -> None:
    published = Path(__file__).parents[2] / "docs" / "manifest.schema.json"
    schema = msgspec.json.decode(published.read_bytes())
    assert schema == msgspec.json.decode(msgspec.json.encode(json_schema())), "run 'make docs'"
    jsonschema.validate(msgspec.json.decode((nano_bundle / MANIFEST_FILE).read_bytes()), schema)


def test_golden_tensors_are_segment_anythings(nano_bundle: Path) -> None:
    """Compare with SamPredictor after replacing its embedding by the unfolded enhancer's."""
    import torch
    from segment_anything import SamPredictor

    from glesam_export.families.sam.reference import build_sam

    golden = load_golden(open_bundle(nano_bundle))
    checkpoint = random_nano()
    decoder = checkpoint.decoder()
    predictor = SamPredictor(
        build_sam(checkpoint.encoder(), decoder.prompt_encoder, decoder.mask_decoder)
    )
    predictor.set_image(golden["image"])
    assert relative_l2(golden["image_embeddings"], predictor.features.numpy()) < 1e-5
    with torch.no_grad():
        predictor.features = checkpoint.enhancer()(predictor.features).float()
        assert relative_l2(golden["enhanced_embeddings"], predictor.features.numpy()) < 1e-5
        for index, (coords, labels) in enumerate(
            zip(golden["point_coords"], golden["point_labels"], strict=True)
        ):
            points = torch.from_numpy(coords[None, :-1]), torch.from_numpy(labels[None, :-1])
            for multimask, chosen in ((True, slice(1, 4)), (False, slice(0, 1))):
                _, iou, low = predictor.predict_torch(*points, multimask_output=multimask)
                assert relative_l2(golden["low_res_masks"][index, chosen], low[0].numpy()) < 1e-4
                assert relative_l2(golden["iou_predictions"][index, chosen], iou[0].numpy()) < 1e-4
