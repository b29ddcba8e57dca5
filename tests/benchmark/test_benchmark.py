"""nano measured with peers: all compute the same, and the figures follow from the rounds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import shape_inference
from PIL import Image
from safetensors import safe_open

import glesam_export
from glesam_benchmark import compare_contenders, worker_jobs
from glesam_runtime.bundle import open_bundle
from glesam_runtime.machine import multiplies_bfloat16

from .conftest import IN_BFLOAT16, PEERS, Benched

Bench = Callable[..., tuple[int, str, str]]
STAGES = ("encoder", "enhancer", "decoder")


def rows(benched: Benched) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in benched.document["rows"]}


def median(row: dict[str, Any], step: str = "end_to_end") -> float:
    return statistics.median(row["seconds"][step]["rounds"])


def test_everyone_has_a_row(benched: Benched) -> None:
    assert list(rows(benched)) == ["openvino", "onnxruntime", *PEERS]
    assert [row["ours"] for row in benched.document["rows"]] == [True] * 2 + [False] * len(PEERS)
    assert benched.document["failed"] == []
    about = benched.document["about"]
    assert (about["format"], about["preset"], about["weights"]) == (
        "glesam-bench",
        "nano",
        "built-in",
    )
    assert about["sha256"] == open_bundle().sha256
    assert about["host"]["threads"] == 1


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "pytorch", "plain-onnxruntime"])
def test_float32_computes_what_the_reference_did(name: str, benched: Benched) -> None:
    assert 0 < rows(benched)[name]["reference_difference"] < 1e-5


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this CPU has no bfloat16 arithmetic")
@pytest.mark.parametrize("name", IN_BFLOAT16)
def test_bfloat16_is_bfloat16(name: str, benched: Benched) -> None:
    """Check that the error is that of eight bits of mantissa: not smaller, not larger."""
    row = rows(benched)[name]
    assert row["precision"] == "bf16"
    assert 1e-3 < row["reference_difference"] < 5e-2
    assert 1e-3 < row["difference"] < 5e-2


def test_figures_follow_from_the_rounds(benched: Benched) -> None:
    for row in benched.document["rows"]:
        seconds = row["seconds"]
        assert set(seconds) == {*STAGES, "end_to_end", "second_prompt"}
        for figures in seconds.values():
            assert len(figures["rounds"]) == 2
            assert figures["median"] == pytest.approx(sum(figures["rounds"]) / 2)
            assert figures["min"] == min(figures["rounds"]) > 0
            assert figures["max"] == max(figures["rounds"])
        parts = np.sum([seconds[stage]["rounds"] for stage in STAGES], axis=0)
        np.testing.assert_allclose(parts, seconds["end_to_end"]["rounds"])
        share = median(row, "second_prompt") / median(row)
        assert row["second_prompt_share"] == pytest.approx(share)
        assert row["peak_rss"] >= row["running_peak_rss"] > 50e6


def test_pytorch_takes_the_memory_of_its_libraries(benched: Benched) -> None:
    assert rows(benched)["pytorch"]["peak_rss"] > 2 * rows(benched)["onnxruntime"]["peak_rss"]


def test_ratios_are_of_medians_and_peaks(benched: Benched) -> None:
    named = rows(benched)
    ratios = {(r["ours"], r["peer"]): r for r in benched.document["ratios"]}
    assert len(ratios) == 2 * len(PEERS)
    for (ours, peer), ratio in ratios.items():
        assert ratio["speed"] == pytest.approx(median(named[peer]) / median(named[ours]))
        expected = named[ours]["peak_rss"] / named[peer]["peak_rss"]
        assert ratio["memory"] == pytest.approx(expected)
        assert f"{ratio['speed']:.2f} x, {ratio['memory']:.2f}" in benched.printed


def test_shares_are_of_the_rate_of_the_precision(benched: Benched) -> None:
    found = benched.document["machine"]
    flops = sum(found["flops"].values())
    for row in benched.document["rows"]:
        expected = flops / median(row) / found["rates"][row["precision"]]
        assert row["rate_share"] == pytest.approx(expected)


def multiplications(path: Path) -> int:
    """Return the multiplications of a graph's matrix products and convolutions, from the shapes."""
    model = onnx.load(path)
    model = shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for info in (*graph.value_info, *graph.input, *graph.output):
        shapes[info.name] = [axis.dim_value for axis in info.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type == "MatMul":
            total += int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            turned = {a.name: a.i for a in node.attribute}.get("transA", 0)
            inner = shapes[node.input[0]][0 if turned else 1]
            total += int(np.prod(shapes[node.output[0]])) * inner
        elif node.op_type == "Conv":
            # [out, in / groups, kh, kw]
            total += int(np.prod(shapes[node.output[0]])) * int(np.prod(shapes[node.input[1]][1:]))
        elif node.op_type == "ConvTranspose":
            total += int(np.prod(shapes[node.input[0]])) * int(np.prod(shapes[node.input[1]][1:]))
        elif node.op_type == "Einsum":
            equation = next(a.s for a in node.attribute if a.name == "equation").decode()
            terms = equation.replace(" ", "").partition("->")[0].split(",")
            sizes = {
                letter: size
                for term, name in zip(terms, node.input, strict=True)
                for letter, size in zip(term, shapes[name], strict=True)
            }
            total += int(np.prod(list(sizes.values())))
        else:
            assert node.op_type not in ("Attention", "FusedMatMul"), node.op_type
    return total


def constant_multiplications() -> int:
    """Return the multiplications on text and timestep, which an exporter folds into constants."""
    total = 0
    with safe_open(Path(glesam_export.__file__).with_name("nano.safetensors"), "numpy") as file:
        for name in file.keys():  # noqa: SIM118 - safe_open returns no mapping
            size = int(np.prod(file.get_slice(name).get_shape()))
            if name.startswith("unet.") and name.endswith(
                ("attn2.to_k.weight", "attn2.to_v.weight")
            ):
                total += 77 * size
            elif name.startswith("unet.") and "time_emb" in name and name.endswith("weight"):
                total += size
    return total


@pytest.mark.parametrize("stage", STAGES)
def test_operations_are_those_of_the_plain_graphs(stage: str, benched: Benched) -> None:
    counted = benched.document["machine"]["flops"][stage]
    expected = multiplications(benched.work / f"{stage}.onnx")
    if stage == "enhancer":
        expected += constant_multiplications()
    assert counted == pytest.approx(2 * expected, rel=1e-3)


def test_text_and_picture(benched: Benched) -> None:
    assert sorted(file.name for file in benched.output.iterdir()) == [
        "bench.json",
        "bench.png",
        "bench.txt",
    ]
    assert (benched.output / "bench.txt").read_text() in benched.printed
    for row in benched.document["rows"]:
        line = next(li for li in benched.printed.splitlines() if li.startswith(row["title"]))
        assert f"{median(row):.4f}" in line
    with Image.open(benched.output / "bench.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 10


def test_plain_exports_are_made_once(benched: Benched, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    done = worker_jobs.run_job
    monkeypatch.setattr(
        worker_jobs, "run_job", lambda job, a: (asked.append(type(job).__name__), done(job, a))[1]
    )
    monkeypatch.setattr(compare_contenders, "_machine", lambda *_: None)
    from .conftest import run_bench

    code, out, err = run_bench(
        *("--backend", "onnxruntime", "--peer", "plain-onnxruntime"),
        *("--rounds", 1, "--repeats", 2, "--work", benched.work, "--json"),
    )
    assert code == 0, err
    assert asked == ["Measure"] * 4
    document = json.loads(out)
    assert document["machine"] is None
    assert [row["rate_share"] for row in document["rows"]] == [None, None]
    assert [len(row["seconds"]["encoder"]["rounds"]) for row in document["rows"]] == [2, 2]
