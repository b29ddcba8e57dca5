"""Test a whole calibration of the built-in nano."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from glesam_calibration import calibrator, yardstick
from glesam_calibration.bundle_comparison import (
    BETWEEN,
    FLOAT,
    QUANTIZED,
    Comparison,
    size_of,
    summary,
)
from glesam_calibration.calibrator import Data, Talk
from glesam_calibration.quantizable_layers import find_layers
from glesam_calibration.quantize import Recipe
from glesam_evaluation.protocol import Row
from glesam_runtime import BundleError, InputError, ParityError, open_bundle
from glesam_runtime.bundle import Bundle, file_ref
from glesam_runtime.manifest import Gate
from glesam_runtime.selftest import run_selftest

Make = Callable[..., Path]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_bundle_keeps_the_contract_and_its_gate(int8_bundle: Path) -> None:
    source, found = open_bundle(), open_bundle(int8_bundle)
    manifest, before = found.manifest, source.manifest
    for stage, described in manifest.stages.items():
        assert described.precision == "int8"
        assert described.inputs == before.stages[stage].inputs
        assert described.outputs == before.stages[stage].outputs
        assert "softmax" in described.islands
    for part in ("model", "preprocessing", "postprocessing", "coordinates", "golden"):
        assert getattr(manifest, part) == getattr(before, part)
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert manifest.parity.gate.mask_iou_mean == 0.98
    assert source.sha256[:12] in manifest.parity.backend
    assert {image.level for image in manifest.parity.images} == {"clear", "LQ-1", "LQ-2", "LQ-3"}
    record = manifest.calibration
    assert record is not None
    assert (record.source, record.method, record.procedural) == (source.sha256, "mse", True)
    assert [sample.level for sample in record.samples][:4] == ["clear", "LQ-1", "LQ-2", "LQ-3"]
    assert size_of(manifest) <= 0.35 * size_of(before)


def test_what_the_gate_accepts_the_selftest_accepts(int8_bundle: Path) -> None:
    # These 12 masks are not among the gate's cases; calibrate() runs this check before it writes.
    result = run_selftest(open_bundle(int8_bundle), yardstick.ENGINE)
    assert result.failures == ()
    assert run_selftest(open_bundle(int8_bundle)).passed, "on the engine that auto chooses"


def test_a_bundle_that_fails_its_golden_check_is_not_written(
    make_quantized: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_it(bundle: Bundle) -> tuple[str, ...]:
        assert not (bundle.path / "manifest.json").exists(), "before anything reads it as a bundle"
        return ("worst mask IoU 0.94858 is below 0.95",)

    monkeypatch.setattr(yardstick, "golden_failures", without_it)
    folder = tmp_path / "bundle"
    with pytest.raises(ParityError, match=r"golden file: worst mask IoU 0\.94858 is below 0\.95"):
        make_quantized(folder)
    assert not folder.exists()
    make_quantized(folder, allow_parity_failure=True)
    parity = open_bundle(folder).manifest.parity
    assert parity is not None
    assert not parity.passed


def test_the_golden_check_of_a_calibration_is_that_of_the_runtime(
    few_bundle: Path, tmp_path: Path
) -> None:
    bundle = open_bundle(shutil.copytree(few_bundle, tmp_path / "bundle"))
    assert yardstick.golden_failures(bundle) == run_selftest(bundle, yardstick.ENGINE).failures
    graph = ir.load(bundle.graph_path("decoder"))
    (bias,) = [v for n, v in graph.graph.initializers.items() if n == "upscaling.3.bias"]
    assert bias.const_value is not None
    bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(9), name=bias.name)
    ir.save(graph, bundle.graph_path("decoder"))
    (mean, worst) = yardstick.golden_failures(bundle)
    assert mean.startswith("mean mask IoU 0.")
    assert worst.startswith("worst mask IoU 0.")


def test_latents_that_pass_the_blocks_are_not_rounded(int8_bundle: Path) -> None:
    graph = ir.load(open_bundle(int8_bundle).graph_path("enhancer")).graph
    makers = {output.name: node.op_type for node in graph for output in node.outputs}
    fed = {}
    for node in graph:
        if node.op_type == "Conv":
            data, weight = (value.name or "" for value in node.inputs[:2])
            assert makers[weight] == "DequantizeLinear"
            fed[weight.split(".weight")[0]] = makers.get(data)
    past = [name for name in fed if name in ("conv_in", "conv_out") or "shortcut" in name]
    assert len(past) == 2 + 5
    assert "DequantizeLinear" not in {fed[name] for name in past}
    islands = open_bundle(int8_bundle).manifest.stages["enhancer"].islands
    assert {f"input of {name}" for name in past} < set(islands)
    assert {fed[name] for name in fed if name not in past} == {"DequantizeLinear"}


def test_a_mask_the_float_bundle_guesses_is_not_the_worst() -> None:
    def rows(mask: int, truth: float, between: float) -> list[Row]:
        figures = {FLOAT: truth, QUANTIZED: truth, BETWEEN: between}
        return [Row("a", mask, "clear", "box", name, iou, 1, 1) for name, iou in figures.items()]

    guessed, found, missed = rows(0, 0.4, 0.3), rows(1, 0.6, 0.96), rows(2, 0.8, 0.7)
    kept = Comparison((*guessed, *found), ())
    assert kept.worst_iou == 0.96
    assert kept.mean_iou == pytest.approx(0.63)
    assert kept.failures(Gate(None, 0.6, 0.95)) == []
    assert Comparison((*guessed, *found, *missed), ()).worst_iou == 0.7
    nothing_found = Comparison(tuple(guessed), ())
    assert nothing_found.worst_iou == 0.3, "all of them count"
    manifest = open_bundle().manifest
    assert "0.9600 worst of the 1 whose object" in summary(manifest, manifest, kept)
    assert "0.3000 worst of all" in summary(manifest, manifest, nothing_found)


def test_another_engine_keeps_the_gate_too(
    int8_bundle: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(int8_bundle)
    parity = bundle.manifest.parity
    assert parity is not None
    cases = calibrator.gate_cases(data)
    of_float, of_eight_bits = (yardstick.Yardstick(b, cases) for b in (open_bundle(), bundle))
    monkeypatch.setattr(yardstick, "ENGINE", "openvino")
    measured = of_float.measure(bundle)
    assert measured.failures(parity.gate) == []
    assert measured.mean_iou >= 0.99
    assert min(image.mask_iou_worst for image in measured.images) >= 0.95
    # A number halfway between two steps is rounded to either side, and later numbers round
    # differently. A wrong reading of the graph would cause an error many times as large.
    assert of_eight_bits.measure(bundle).mean_iou >= 0.995


def test_fp8_is_read_alike_by_onnxs_evaluator_and_onnxruntime(fp8_bundle: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    from glesam_runtime import chain
    from glesam_runtime.backends.loading import load_engine
    from glesam_runtime.bundle import load_golden

    bundle = open_bundle(fp8_bundle)
    assert bundle.manifest.target.opset == 19
    golden = load_golden(bundle)
    engine = load_engine(bundle, "onnxruntime", stages=["enhancer", "decoder"])
    z_l = golden["image_embeddings"].astype(np.float32)
    enhanced = engine.to_host(
        chain.enhance(engine, bundle.manifest, {chain.EMBEDDINGS: z_l})[chain.EMBEDDINGS]
    )
    (wanted,) = ReferenceEvaluator(str(bundle.graph_path("enhancer"))).run(
        None, {"image_embeddings": z_l}
    )
    # Both round, and may round halfway cases differently: less apart than the rounding itself.
    apart = np.linalg.norm(enhanced - wanted) / np.linalg.norm(wanted)
    error = np.linalg.norm(wanted - golden["enhanced_embeddings"]) / np.linalg.norm(wanted)
    assert apart < error < 0.03
    prompts = {name: golden[name] for name in ("point_coords", "point_labels", "mask_input")}
    given = {"image_embeddings": wanted, **prompts, "has_mask_input": golden["has_mask_input"]}
    low_res, _ = chain.decode(engine, given, {})
    (expected,) = ReferenceEvaluator(str(bundle.graph_path("decoder"))).run(
        ["low_res_masks"], given
    )
    np.testing.assert_allclose(low_res, expected, atol=1e-4 * np.abs(expected).max())


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop_at", [("encoder", 4), ("enhancer", 1), ("decoder", 6)])
def test_interrupted_and_resumed_it_is_the_same_bit_for_bit(
    stop_at: tuple[str, int], quantize_few: Make, few_bundle: Path, tmp_path: Path, quiet: Talk
) -> None:
    seen: list[tuple[str, int]] = []

    def stop(stage: str, done: int, _: int) -> None:
        if (stage, done) == stop_at:
            raise Interrupted

    folder = tmp_path / "bundle"
    with pytest.raises(Interrupted):
        quantize_few(folder, talk=replace(quiet, progress=stop))
    assert not folder.exists()
    assert calibrator.state_folder(folder).is_dir()
    watched = replace(quiet, progress=lambda stage, done, _: seen.append((stage, done)))
    quantize_few(folder, talk=watched, resume=True)
    assert stop_at not in seen, "what was done is not done again"
    assert contents(folder) == contents(few_bundle)
    assert not calibrator.state_folder(folder).exists()


def test_memory_is_bounded_by_groups_and_the_result_the_same(
    data: Data, tmp_path: Path, quiet: Talk
) -> None:
    bundle, data = open_bundle(), replace(data, samples=2)
    runs: list[int] = []
    talk = replace(quiet, progress=lambda stage, done, total: runs.append(total))
    _, _, whole = calibrator.take_statistics(bundle, data, tmp_path / "whole", False, quiet)
    _, _, parts = calibrator.take_statistics(bundle, data, tmp_path / "parts", False, talk, 1 << 22)
    assert max(runs) >= 2 * data.samples
    for stage, found in whole.items():
        assert found.keys() == parts[stage].keys()
        for name, statistics in found.items():
            assert parts[stage][name].largest == pytest.approx(statistics.largest, rel=1e-4)


def test_another_plan_is_not_gone_on_from(
    quantize_few: Make, data: Data, tmp_path: Path, quiet: Talk
) -> None:
    def stop(*_: object) -> None:
        raise Interrupted

    folder = tmp_path / "bundle"
    with pytest.raises(InputError, match="no calibration to resume"):
        quantize_few(folder, resume=True)
    with pytest.raises(Interrupted):
        quantize_few(folder, talk=replace(quiet, progress=stop))
    with pytest.raises(InputError, match="statistics of another seed"):
        quantize_few(folder, resume=True, data=replace(data, samples=6, seed=1))
    damaged = calibrator.state_folder(folder) / "encoder.safetensors"
    damaged.write_bytes(b"?")
    with pytest.raises(InputError, match="damaged"):
        quantize_few(folder, resume=True)


def test_a_foreign_folder_is_left_alone(quantize_few: Make, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    state = calibrator.state_folder(folder)
    state.mkdir()
    (state / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="contains files that are no calibration"):
        quantize_few(folder)
    assert (state / "thesis.txt").read_text() == "mine"


def test_what_is_quantized_already_is_refused(
    int8_bundle: Path, data: Data, tmp_path: Path, quiet: Talk
) -> None:
    with pytest.raises(BundleError, match="encoder is quantized already"):
        calibrator.calibrate(open_bundle(int8_bundle), tmp_path / "b", data, Recipe(), quiet)
    assert list(tmp_path.iterdir()) == []


def test_outside_its_gate_nothing_is_written_and_statistics_stay(
    make_quantized: Make, tmp_path: Path
) -> None:
    coarse = Recipe(method="percentile", percentile=80.0)
    folder = tmp_path / "bundle"
    with pytest.raises(ParityError, match=r"mean mask IoU .* is below 0\.98.*--resume"):
        make_quantized(folder, coarse)
    assert not folder.exists()
    make_quantized(folder, coarse, allow_parity_failure=True)
    parity = open_bundle(folder).manifest.parity
    assert parity is not None
    assert not parity.passed


def test_layers_kept_in_float_and_stages_of_weights_alone(
    make_quantized: Make, tmp_path: Path
) -> None:
    kept = {"encoder": ["patch_embed", "neck.2"]}
    recipe = Recipe(weights_only=("enhancer", "decoder"), smoothing=0.5, float_layers=kept)
    bundle = open_bundle(make_quantized(tmp_path / "b", recipe))
    graphs = {s: ir.load(bundle.graph_path(s)).graph for s in bundle.manifest.stages}
    assert {layer.name for layer in find_layers(graphs["encoder"])} == {"patch_embed", "neck.2"}
    quantizers = {
        stage: sum(node.op_type == "QuantizeLinear" for node in graph)
        for stage, graph in graphs.items()
    }
    assert quantizers["encoder"] == 25
    assert quantizers["enhancer"] == quantizers["decoder"] == 0
    record = bundle.manifest.calibration
    assert record is not None
    assert record.float_layers == {"encoder": ("patch_embed", "neck.2")}
    assert (record.smoothing, record.weights_only) == (0.5, ("enhancer", "decoder"))
    with pytest.raises(BundleError, match=r"has no layer 'neck\.7'"):
        make_quantized(tmp_path / "c", replace(recipe, float_layers={"encoder": ["neck.7"]}))


def test_a_full_disk_is_told_and_leaves_what_there_was(
    quantize_few: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    from glesam_calibration import kept_statistics

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kept_statistics, "save_file", full)
    with pytest.raises(InputError, match="no space left"):
        quantize_few(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_the_record_survives_json(int8_bundle: Path) -> None:
    manifest = open_bundle(int8_bundle).manifest
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=type(manifest)) == manifest


def test_weights_behind_a_hard_link_are_refused_before_any_work(
    data: Data, tmp_path: Path, quiet: Talk
) -> None:
    source = open_bundle()
    copy = Path(shutil.copytree(source.path, tmp_path / "copy"))
    weights = copy / "encoder.onnx.data"
    weights.write_bytes(b"0000")
    (tmp_path / "elsewhere").hardlink_to(weights)
    stages = dict(source.manifest.stages)
    stages["encoder"] = msgspec.structs.replace(stages["encoder"], data=file_ref(weights))
    manifest = msgspec.structs.replace(source.manifest, stages=stages)
    with pytest.raises(BundleError, match=r"encoder\.onnx\.data: is a hard link"):
        calibrator.calibrate(Bundle(copy, manifest, ""), tmp_path / "b", data, Recipe(), quiet)
