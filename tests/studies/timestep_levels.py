"""Compare an enhancer of several timesteps with one of a single timestep, in size and time.

Usage: python -m tests.studies.timestep_levels [FOLDER]

A third graph stands for one LoRA per timestep: every weight is a stack with an entry for each
level, from which the graph selects. All three have nano's size and random weights, and take turns
in one process and one run. FOLDER keeps the graphs. The size of Stable Diffusion's tables is
computed from its configuration.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from diffusers.models.resnet import ResnetBlock2D

from glesam_calibration.graph_files import save_graph
from glesam_calibration.quantizable_layers import find_layers
from glesam_export import stages
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.engines.build_options import EngineBuildOptions
from glesam_export.engines.compile import compile_network, parse
from glesam_export.enhancer.reference import build_unet
from glesam_export.presets import sam_preset, unet_preset
from glesam_export.timesteps import add_levels
from glesam_runtime.backends.tensorrt_api import import_family
from glesam_runtime.engine_libraries import openvino_core
from glesam_runtime.errors import GlesamError
from glesam_runtime.interface import expected_interface
from glesam_runtime.machine import cpu_name
from glesam_runtime.timestep_levels import LEVEL

STEPS = (1, 100, 400, 999)
ROUNDS = 15
SINGLE, BANK, STACKED = "one timestep", "four timesteps", "four timesteps, a LoRA each"
Run = Callable[[int], object]


def stack_weights(path: Path, folder: Path) -> Path:
    """Return a copy of a graph whose layers select their weights by `level` (one image a call)."""
    model = ir.load(path)
    graph = model.graph
    level = ir.Value(name=LEVEL, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(level)
    axes = ir.Value(
        name="level_axes", const_value=ir.tensor(np.asarray([0], np.int64), name="level_axes")
    )
    graph.initializers["level_axes"] = axes
    scalar = ir.node("Squeeze", [level, axes])
    index = ir.node("Cast", [scalar.outputs[0]], {"to": int(ir.DataType.INT64)})
    chosen = [scalar, index]
    for name in dict.fromkeys(layer.weight for layer in find_layers(graph)):
        old = graph.initializers[name]
        assert old.const_value is not None
        weight = old.const_value.numpy()
        # The entries differ a little, so that no engine can merge them.
        stack = np.stack([weight * np.float32(1 + 0.01 * at) for at in range(len(STEPS))])
        kept = ir.Value(name=f"{name}_stack", const_value=ir.tensor(stack, name=f"{name}_stack"))
        graph.initializers[f"{name}_stack"] = kept
        select = ir.node("Gather", [kept, index.outputs[0]], {"axis": 0})
        chosen.append(select)
        for use in list(old.uses()):
            use.node.replace_input_with(use.idx, select.outputs[0])
        del graph.initializers[name]
    graph.insert_before(next(iter(graph)), chosen)
    made = folder / "stacked.onnx"
    save_graph(model, made)
    return made


def engines(path: Path) -> dict[str, Run]:
    """Return how to run a graph at a level on each engine, in float32 on one thread."""
    rng = np.random.default_rng(0)
    z_l = rng.normal(size=(1, 256, 16, 16)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    hint = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = openvino_core().compile_model(path, "CPU", hint).create_infer_request()
    leveled = LEVEL in [each.name for each in session.get_inputs()]

    def given(level: int) -> dict[str, np.ndarray]:
        index = {LEVEL: np.asarray([level], np.float32)} if leveled else {}
        return {"image_embeddings": z_l, **index}

    return {
        "onnxruntime": lambda level: session.run(None, given(level)),
        "openvino": lambda level: request.infer(given(level), share_inputs=True),
    }


def main(place: Path) -> None:
    """Print sizes, times, and what TensorRT-RTX says."""
    paths = {}
    for name, steps in ((SINGLE, ()), (BANK, STEPS)):
        checkpoint = RandomCheckpoint(0, sam_preset("nano"), unet_preset("nano"), 5.0, 999)
        add_levels(checkpoint, steps)
        folder = place / str(len(steps))
        folder.mkdir(exist_ok=True)
        made = folder / "enhancer.onnx"
        if not made.exists():
            stages.export_stage(checkpoint, "enhancer", "fp32", 1, folder)
        paths[name] = made
    paths[STACKED] = stack_weights(paths[SINGLE], place)
    for name, path in paths.items():
        print(f"{name}: {path.stat().st_size / 1e6:.3f} MB", flush=True)
    _tables("sd15")
    _tables("sd21")
    runs = {name: engines(path) for name, path in paths.items()}
    print(f"{cpu_name()}; ms per image, median (least) of {ROUNDS} rounds on one thread")
    for engine in ("onnxruntime", "openvino"):
        _time(engine, {name: each[engine] for name, each in runs.items()})
    for name, path in paths.items():
        _compile(name, path, place)


def _tables(preset: str) -> None:
    """Print the size of a preset's tables of biases, four levels in float32."""
    with torch.device("meta"):
        unet = build_unet(unet_preset(preset))
    blocks = [block for block in unet.modules() if isinstance(block, ResnetBlock2D)]
    rows = sum(block.conv1.out_channels for block in blocks)
    weights = sum(parameter.numel() for parameter in unet.parameters())
    # One row of biases is there with a single timestep too.
    more = 4 * rows * (len(STEPS) - 1)
    print(
        f"{preset}: {len(blocks)} blocks, {rows} biases per timestep; three more timesteps add "
        f"{more / 1e3:.0f} kB to {4 * weights / 1e6:.0f} MB, three more LoRAs as stacks "
        f"{3 * 4 * weights / 1e6:.0f} MB"
    )


def _time(engine: str, ways: dict[str, Run]) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, call in ways.items():
            start = time.perf_counter()
            call(turn % len(STEPS))
            if turn:  # the first is a warm-up
                seconds[name].append(1e3 * (time.perf_counter() - start))
    base = statistics.median(seconds[SINGLE])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{engine}, {name}: {median:.1f} ({min(values):.1f}), {median / base:.3f}x")


def _compile(name: str, path: Path, place: Path) -> None:
    api = import_family("tensorrt-rtx")
    inputs, _ = expected_interface("enhancer", 256, 1, levels=name != SINGLE)
    options = EngineBuildOptions("tensorrt-rtx", ["8.9"])
    start = time.perf_counter()
    try:
        engine = place / "enhancer.engine"
        compile_network(api, parse(api, path), inputs, options, engine, "enhancer")
        size = f"{engine.stat().st_size / 1e6:.1f} MB"
        print(f"tensorrt-rtx, {name}: {time.perf_counter() - start:.1f} s, {size}", flush=True)
    except GlesamError as error:
        print(f"tensorrt-rtx, {name}: {error}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
