"""One enhancer of several timesteps equals the unfolded model at each of them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from msgspec.structs import replace
from safetensors.numpy import load_file, save_file

from glesam_benchmark.profile import _stage_inputs
from glesam_calibration.calibrator import take_statistics
from glesam_export import build, fold, stages
from glesam_export.checkpoints import Checkpoint
from glesam_export.console_output import parity_table
from glesam_export.engines.build_options import EngineBuildOptions
from glesam_export.engines.compile import compile_network, parse
from glesam_export.enhancer.levels import LeveledEnhancerGraph
from glesam_export.timesteps import Timesteps, add_levels, parse_timesteps
from glesam_export.verify import cases, reference_outputs
from glesam_export.verify.parity import measure
from glesam_export.web_site import write_site
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_runtime import GleSamPredictor, chain
from glesam_runtime.backends.loading import load_engine
from glesam_runtime.backends.tensorrt_api import import_family
from glesam_runtime.bundle import Bundle, file_ref, open_bundle
from glesam_runtime.compare import GATES, relative_l2
from glesam_runtime.errors import BundleError, InputError
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import TIMESTEP_LEVELS
from glesam_runtime.manifest_file import dump
from glesam_runtime.selftest import format_table, run_selftest
from glesam_runtime.timestep_levels import golden_name
from glesam_serving.triton.config import GraphModel, graph_config
from glesam_serving.triton.repository import warmup_tensors

from ..calibration.conftest import FEW, QUIET
from ..released import Released

STEPS = (1, 100, 400, 999)
EXACT = 1e-10
LIMIT = GATES["fp32"].stage_relative_l2
ORDER = [2, 0, 3, 1, 0]
"""Levels of a batch: out of order, and one of them twice."""
Exporter = Callable[..., tuple[int, str, str]]


def leveled_nano() -> Checkpoint:
    """Return the built-in checkpoint, which was trained at timestep 1, with four timesteps."""
    checkpoint = make_checkpoint(WeightOptions("nano"))
    add_levels(checkpoint, STEPS)
    return checkpoint


def latents(count: int) -> torch.Tensor:
    return torch.randn(count, 256, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def reference_at_levels(z_l: torch.Tensor, order: list[int]) -> torch.Tensor:
    """Return z_H of diffusers' U-Net with unmerged peft adapters, one image at a time."""
    checkpoint = leveled_nano()
    enhancer = checkpoint.enhancer().to(z_l.dtype)
    found = []
    for image, level in zip(z_l, order, strict=True):
        enhancer.set_level(checkpoint.levels[level])
        found.append(enhancer(image[None]))
    return torch.cat(found)


@torch.no_grad()
def test_the_fold_is_exact_at_every_timestep() -> None:
    """The oracle is the unmerged U-Net in float64, which gets its timestep as an argument."""
    z_l = latents(len(ORDER)).double()
    checkpoint = leveled_nano()
    folded = fold.fold_levels(checkpoint.enhancer().double(), STEPS)
    graph = LeveledEnhancerGraph(folded, checkpoint.gamma, checkpoint.levels)
    graph.dtype = torch.float64
    level = torch.tensor(ORDER, dtype=torch.float64)
    eps, reference = graph.correction(z_l, level.long()), checkpoint.enhancer().double()
    for index, place in enumerate(ORDER):
        reference.set_level(checkpoint.levels[place])
        wanted = reference.eps(z_l[index : index + 1])
        assert relative_l2(eps[index].numpy(), wanted[0].numpy()) < EXACT
    wanted = reference_at_levels(z_l, ORDER)
    for found, expected in zip(graph(z_l, level), wanted, strict=True):
        assert relative_l2(found.numpy(), expected.numpy()) < EXACT
    assert not [name for name in graph.state_dict() if "time" in name or "lora" in name]


@pytest.fixture(scope="module")
def enhancer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the enhancer of four timesteps for any number of images."""
    folder = tmp_path_factory.mktemp("enhancer")
    stage = stages.export_stage(leveled_nano(), "enhancer", "fp32", "dynamic", folder)
    return folder / stage.graph.file


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def test_every_image_of_a_batch_gets_its_own_timestep(enhancer: Path) -> None:
    run, z_l = session(enhancer), latents(len(ORDER))
    level = np.asarray(ORDER, np.float32)
    (found,) = run.run(None, {"image_embeddings": z_l.numpy(), "level": level})
    wanted = reference_at_levels(z_l, ORDER).numpy()
    for mine, theirs in zip(found, wanted, strict=True):
        assert relative_l2(mine, theirs) < LIMIT
    level[0] = 1
    (other,) = run.run(None, {"image_embeddings": z_l.numpy(), "level": level})
    np.testing.assert_array_equal(other[1:], found[1:])
    assert relative_l2(other[0], found[0]) > 0.1


def test_weights_are_shared(enhancer: Path) -> None:
    """Three more timesteps add less than one percent to the graph."""
    single = open_bundle().graph_path("enhancer").stat().st_size
    assert abs(enhancer.stat().st_size - single) < 0.01 * single


def test_tensorrt_rtx_compiles_it(enhancer: Path, tmp_path: Path) -> None:
    api = import_family("tensorrt-rtx")
    inputs, _ = expected_interface("enhancer", 256, "dynamic", levels=True)
    engine = tmp_path / "enhancer.engine"
    options = EngineBuildOptions("tensorrt-rtx", ["8.9"])
    compile_network(api, parse(api, enhancer), inputs, options, engine, "enhancer")
    assert engine.stat().st_size > 1_000_000


@pytest.fixture(scope="module")
def bundle(enhancer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return nano with four timesteps: encoder and decoder of the built-in bundle.

    The enhancer's graph takes any number of images, and the manifest says one.
    """
    built_in, checkpoint = open_bundle(), leveled_nano()
    folder = Path(shutil.copytree(built_in.path, tmp_path_factory.mktemp("levels") / "bundle"))
    plain = built_in.manifest
    shutil.copyfile(enhancer, folder / "enhancer.onnx")
    inputs, outputs = expected_interface("enhancer", 256, 1, levels=True)
    graph = file_ref(folder / "enhancer.onnx")
    stage = replace(plain.stages["enhancer"], graph=graph, inputs=inputs, outputs=outputs)
    golden = load_file(folder / "golden.safetensors")
    z_l = torch.from_numpy(golden["image_embeddings"])
    outputs_at = reference_at_levels(z_l.expand(4, -1, -1, -1), [0, 1, 2, 3])
    for step, output in zip(STEPS[1:], outputs_at[1:], strict=True):
        golden[golden_name(step)] = output[None].float().numpy()
    save_file(golden, folder / "golden.safetensors")
    manifest = replace(
        plain,
        requires=(TIMESTEP_LEVELS,),
        model=replace(plain.model, timestep_levels=checkpoint.levels),
        stages={**plain.stages, "enhancer": stage},
        golden=file_ref(folder / "golden.safetensors"),
    )
    (folder / "manifest.json").write_bytes(dump(manifest))
    return folder


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_self_test_covers_every_timestep(bundle: Path, backend: str) -> None:
    result = run_selftest(open_bundle(bundle), backend)
    assert result.passed
    outputs = {error.output for error in result.errors if error.stage == "enhancer"}
    assert outputs == {"enhanced_embeddings", *map(golden_name, STEPS[1:])}
    assert "enhanced_embeddings_100 " in format_table(result)


def test_a_wrong_timestep_fails_the_self_test(bundle: Path, tmp_path: Path) -> None:
    """A graph whose levels are in another order is found."""
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    golden = load_file(copy / "golden.safetensors")
    names = golden_name(100), golden_name(400)
    golden[names[0]], golden[names[1]] = golden[names[1]], golden[names[0]]
    save_file(golden, copy / "golden.safetensors")
    manifest = replace(open_bundle(bundle).manifest, golden=file_ref(copy / "golden.safetensors"))
    (copy / "manifest.json").write_bytes(dump(manifest))
    failures = run_selftest(open_bundle(copy), "onnxruntime").failures
    assert [name for name in names if any(name in failure for failure in failures)] == list(names)


def test_the_caller_chooses_the_timestep(bundle: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    found = {}
    for step in (None, 1, 999):
        predictor = GleSamPredictor(bundle, backend="onnxruntime", timestep=step)
        predictor.set_image(image)
        found[step] = predictor.get_image_embedding()
    plain = GleSamPredictor(bundle, backend="onnxruntime", enhance=False)
    plain.set_image(image)
    z_l = torch.from_numpy(plain.get_image_embedding())
    np.testing.assert_array_equal(found[None], found[1])
    for step in (1, 999):
        wanted = reference_at_levels(z_l, [STEPS.index(step)]).numpy()
        assert relative_l2(found[step], wanted) < LIMIT


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_call_names_a_timestep_for_each_image(bundle: Path, enhancer: Path, backend: str) -> None:
    plain = open_bundle(bundle).manifest
    inputs, outputs = expected_interface("enhancer", 256, "dynamic", levels=True)
    stage = replace(plain.stages["enhancer"], inputs=inputs, outputs=outputs)
    manifest = replace(
        plain,
        target=replace(plain.target, batch="dynamic"),
        stages={**plain.stages, "enhancer": stage},
    )
    engine = load_engine(Bundle(enhancer.parent, manifest, ""), backend, stages=["enhancer"])
    z_l = latents(3)
    given = {chain.EMBEDDINGS: z_l.numpy()}
    found = chain.enhance(engine, manifest, given, [400, 1, 999])[chain.EMBEDDINGS]
    wanted = reference_at_levels(z_l, [2, 0, 3]).numpy()
    for mine, theirs in zip(engine.to_host(found), wanted, strict=True):
        assert relative_l2(mine, theirs) < LIMIT
    with pytest.raises(InputError, match="2 values for 3 images"):
        chain.enhance(engine, manifest, given, [1, 100])
    with pytest.raises(InputError, match="timestep 2: this bundle has"):
        chain.enhance(engine, manifest, given, [1, 2, 100])


def test_a_fixed_batch_is_filled_up_with_levels_too(bundle: Path) -> None:
    plain = open_bundle(bundle).manifest
    manifest = replace(plain, target=replace(plain.target, batch=4))

    class Seen:
        name, device = "seen", "cpu"
        given: dict[str, np.ndarray]

        def run(self, stage: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            self.given = inputs
            return {"enhanced_embeddings": inputs["image_embeddings"]}

        def to_host(self, value: np.ndarray) -> np.ndarray:
            return value

    engine = Seen()
    features = {chain.EMBEDDINGS: latents(1).numpy()}
    chain.enhance(engine, manifest, features, 400)  # type: ignore[arg-type]
    assert engine.given["level"].tolist() == [2, 2, 2, 2]
    assert engine.given["level"].dtype == np.float32
    chain.enhance(engine, manifest, features)  # type: ignore[arg-type]
    assert engine.given["level"].tolist() == [0, 0, 0, 0]


def test_a_timestep_that_is_not_there_is_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match="timestep 500: this bundle has 1, 100, 400, 999"):
        GleSamPredictor(bundle, backend="onnxruntime", timestep=500)
    with pytest.raises(InputError, match="timestep 9: this bundle has timestep 1 only"):
        GleSamPredictor(backend="onnxruntime", timestep=9)
    with pytest.raises(InputError, match="timestep 1: goes with the enhancer"):
        GleSamPredictor(bundle, backend="onnxruntime", timestep=1, enhance=False)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"requires": [\n    "timestep_levels"\n  ],\n', "", "'timestep_levels' needs"),
        ('"timestep": 1,', '"timestep": 2,', "none of timestep_levels"),
        ('"timestep": 100,', '"timestep": 400,', "ascending"),
    ],
)
def test_a_manifest_must_agree_with_itself(
    bundle: Path, tmp_path: Path, before: str, after: str, message: str
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    path = copy / "manifest.json"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(BundleError, match=message):
        open_bundle(copy)


def test_a_feature_without_its_levels_is_refused(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(open_bundle().path, tmp_path / "copy"))
    manifest = replace(open_bundle(copy).manifest, requires=(TIMESTEP_LEVELS,))
    (copy / "manifest.json").write_bytes(dump(manifest))
    with pytest.raises(BundleError, match="needs 'timestep_levels'"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("1,1000",), "1000 is outside 0..999"),
        (("1,100,1",), "1 is named twice"),
        (("1,,5",), "pass a number"),
        (("1,-5",), "pass a number"),
        (("1;5",), "pass a number"),
        ((",".join(map(str, range(257))),), "257 timesteps, more than 256"),
        (("1000",), "outside 0..999"),
    ],
)
def test_wrong_timesteps_are_one_line(
    glesam_export: Exporter, tmp_path: Path, given: tuple[str], message: str
) -> None:
    where = tmp_path / "made"
    weights = "--preset", "nano", "--random-weights", 0
    code, _, err = glesam_export("onnx", *weights, "--timestep", *given, "-o", where)
    (line,) = (line for line in err.splitlines() if line.startswith("error"))
    assert code == 2
    assert message in line
    assert not where.exists()


@pytest.mark.parametrize("steps", [(), ("--timestep", "1,100,400,999")])
def test_one_lora_serves_all_timesteps(
    glesam_export: Exporter, released: Released, tmp_path: Path, steps: tuple[str, ...]
) -> None:
    where = tmp_path / "made"
    files = "--sam", released.sam, "--sd", released.sd
    loras = [word for _ in range(4) for word in ("--lora", released.lora)]
    code, _, err = glesam_export("onnx", *files, *loras, "--gamma", 5, *steps, "-o", where)
    (line,) = (line for line in err.splitlines() if line.startswith("error"))
    assert code == 2
    assert "--lora: 4 files were given, but one LoRA serves every timestep" in line
    assert not where.exists()


def test_a_trained_checkpoint_keeps_its_own_timestep(
    glesam_export: Exporter, tmp_path: Path
) -> None:
    where = tmp_path / "made"
    code, _, err = glesam_export("onnx", "--preset", "nano", "--timestep", "100,400", "-o", where)
    assert code == 2
    assert "1 is missing, with which the checkpoint was trained; add it" in err
    assert not where.exists()


def test_spelling_is_read_back() -> None:
    found = parse_timesteps("400,1,100")
    assert isinstance(found, Timesteps)
    assert (int(found), found.steps, str(found)) == (400, (1, 100, 400), "400,1,100")
    assert parse_timesteps(str(found)) == found
    assert parse_timesteps("7") == 7


def test_the_verification_covers_every_timestep(bundle: Path) -> None:
    """Each timestep is compared with the reference, and a row of the table says which."""
    checkpoint, opened = leveled_nano(), open_bundle(bundle)
    (picture, *_) = cases.make_cases(checkpoint.preset)
    asked = cases.at_every_level([picture], checkpoint)
    reference = reference_outputs.record_reference(checkpoint, asked, QUIET.step)
    found = measure(opened, asked, reference, QUIET.step)
    assert [image.timestep for image in found.images] == list(STEPS)
    for image in found.images:
        assert max(error.relative_l2 for error in image.errors.values()) < LIMIT
    assert "999" in parity_table(found)
    others = build.at_other_levels(asked, reference)
    golden = load_file(bundle / "golden.safetensors")
    assert sorted(others) == sorted(map(golden_name, STEPS[1:]))
    for name, tensor in others.items():
        assert relative_l2(golden[name], tensor) < 1e-5


def test_a_calibration_sees_every_timestep(bundle: Path, tmp_path: Path) -> None:
    few = dataclasses.replace(FEW, samples=1)
    folders = tmp_path / "one", tmp_path / "four"
    (_, _, one), (_, _, four) = (
        take_statistics(opened, few, folder, False, QUIET)
        for opened, folder in zip((open_bundle(), open_bundle(bundle)), folders, strict=True)
    )
    assert set(four) == {"encoder", "enhancer", "decoder"}
    assert len(four["enhancer"]) == len(one["enhancer"])


def test_the_other_programs_run_it(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    profiled = _stage_inputs(opened)["enhancer"]
    assert profiled["level"].tolist() == [0]
    assert warmup_tensors(opened, "enhancer")["level"].tolist() == [0]
    config = graph_config(
        "enhancer",
        opened.manifest.stages["enhancer"],
        GraphModel("onnxruntime", "model.onnx", 8),
        1,
        "cpu",
        {"level": (1,)},
    )
    assert 'name: "level"' in config
    assert "shape: []" in config
    with pytest.raises(BundleError, match="with one --timestep"):
        write_site(opened, tmp_path / "site", tmp_path)
