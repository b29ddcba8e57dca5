"""Write a bundle with several timesteps without an export, for tests of the programs.

Its enhancer is nano's, and multiplies the result by one plus the level. So a wrong level shows.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx_ir as ir
from msgspec.structs import replace
from safetensors.numpy import load_file, save_file

from glesam_runtime.bundle import builtin_bundle_path, file_ref, open_bundle
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import TIMESTEP_LEVELS, TimestepLevel
from glesam_runtime.manifest_file import dump
from glesam_runtime.timestep_levels import golden_name

STEPS = (1, 100, 400)


def write_leveled(folder: Path, batch: str | int = 1) -> Path:
    """Write the bundle into a new folder; `batch` is that of its enhancer's interface."""
    plain = open_bundle().manifest
    shutil.copytree(builtin_bundle_path(), folder)
    _add_level(folder / "enhancer.onnx")
    golden = load_file(folder / "golden.safetensors")
    for level, step in enumerate(STEPS[1:], 1):
        golden[golden_name(step)] = golden["enhanced_embeddings"] * (1 + level)
    save_file(golden, folder / "golden.safetensors")
    alpha_bars = plain.model.alpha_bar, 0.9, 0.5
    inputs, outputs = expected_interface("enhancer", 256, batch, levels=True)
    graph = file_ref(folder / "enhancer.onnx")
    enhancer = replace(plain.stages["enhancer"], graph=graph, inputs=inputs, outputs=outputs)
    manifest = replace(
        plain,
        requires=(TIMESTEP_LEVELS,),
        model=replace(
            plain.model,
            timestep_levels=tuple(map(TimestepLevel, STEPS, alpha_bars)),
        ),
        stages={**plain.stages, "enhancer": enhancer},
        golden=file_ref(folder / "golden.safetensors"),
    )
    (folder / "manifest.json").write_bytes(dump(manifest))
    return folder


def _add_level(path: Path) -> None:
    """Give an enhancer the input `level`, and multiply its output by one plus that."""
    model = ir.load(path)
    graph = model.graph
    level = ir.Value(name="level", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(level)
    old = graph.outputs[0]
    one = ir.node("Constant", [], {"value_floats": [1.0]})
    axes = ir.node("Constant", [], {"value_ints": [1, 2, 3]})
    factor = ir.node("Add", [level, one.outputs[0]])
    shaped = ir.node("Unsqueeze", [factor.outputs[0], axes.outputs[0]])
    scaled = ir.node("Mul", [old, shaped.outputs[0]])
    (made,) = scaled.outputs
    made.shape, made.type = old.shape, old.type
    old.name, made.name = "at_first_level", old.name
    graph.extend([one, axes, factor, shaped, scaled])
    graph.outputs[0] = made
    ir.save(model, path)
