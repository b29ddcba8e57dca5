"""glesam-export debug: which tensor of a stage is the first to go wrong, and how far."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from glesam_export.engines.plan import Plan, family_named
from glesam_export.engines.side import EngineSide
from glesam_export.layers import LayerError, OnnxSide, Side, Tensors, compare_layers
from glesam_runtime import chain
from glesam_runtime.backends.cuda import Device
from glesam_runtime.backends.tensorrt_api import import_family
from glesam_runtime.bundle import Bundle, load_golden, require_own_weights
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.image import preprocess
from glesam_runtime.manifest import StageName

ROUNDED = "rounded"
"""The other side that needs no GPU: the same graph, every half-precision result rounded."""


def compare_stage(bundle: Bundle, stage: StageName, against: str) -> list[LayerError]:
    """Compare every tensor of a stage on the bundle's golden inputs.

    Args:
        bundle: of ONNX graphs.
        stage: which.
        against: ROUNDED, or an engine family, whose engine is compiled for the GPU at hand.

    Raises:
        BundleError: its weights are hard links.
        InputError: the bundle holds engines, or rounding an fp32 graph was asked for.
        BackendError: the library or a GPU is missing, or failed.
    """
    if bundle.manifest.target.engine != "onnx":
        raise InputError(f"{bundle.path}: holds engines; pass the ONNX bundle they came from")
    require_own_weights(bundle)
    spec, path = bundle.manifest.stages[stage], bundle.graph_path(stage)
    with tempfile.TemporaryDirectory() as folder:
        other: Side
        if against == ROUNDED:
            if spec.precision == "fp32":
                raise InputError(
                    f"{bundle.path}: its {stage} is fp32 and rounds nothing; "
                    "pass --against tensorrt or tensorrt-rtx"
                )
            other = OnnxSide(path, Path(folder), rounded=True)
        else:
            plan = Plan(family_named(against))
            api = import_family(plan.family)
            try:
                Device()
            except BackendError as error:
                raise BackendError(
                    f"--against {against}: {error}; --against {ROUNDED} needs none"
                ) from error
            other = EngineSide(api, path, spec, plan)
        exact = OnnxSide(path, Path(folder), rounded=False)
        return list(compare_layers(ir.load(path).graph, exact, other, _inputs(bundle, stage)))


def table(errors: Sequence[LayerError], top: int) -> str:
    """The first tensor that is not finite, and those that err most, in the graph's order."""
    lines = [
        f"{'tensor':<40} {'operation':<20} {'relative L2':>12} {'max abs':>10} {'largest':>10}"
    ]
    broken = next((error for error in errors if not math.isfinite(error.relative_l2)), None)
    worst = sorted(errors, key=lambda error: -error.relative_l2)[:top]
    shown = [error for error in errors if error in worst or error is broken]
    lines += [
        f"{e.tensor:<40.40} {e.op_type:<20.20} {e.relative_l2:>12.3g} {e.max_abs:>10.3g} "
        f"{e.largest:>10.3g}"
        for e in shown
    ]
    if broken is not None:
        lines.append(f"first not finite: {broken.tensor} ({broken.op_type})")
    lines.append(f"{len(shown)} of {len(errors)} tensors, in the order they are computed")
    return "\n".join(lines)


def _inputs(bundle: Bundle, stage: StageName) -> Tensors:
    """The golden file's own inputs of a stage."""
    golden = load_golden(bundle)
    if stage == "encoder":
        image = preprocess(golden["image"].astype(np.uint8), bundle.manifest.preprocessing)
        return {"image": image.tensor}
    tensors = {name: np.asarray(t, np.float32) for name, t in golden.items() if name != "image"}
    if stage == "decoder":
        tensors[chain.EMBEDDINGS] = tensors["enhanced_embeddings"]
    return tensors
