"""Measures a bundle against the outputs of the PyTorch reference, by stage and end to end.

`reference_outputs` ran the reference before. The bundle also runs one stage at a time, so that no
two large models are in memory together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from glesam_calibration.bundle_comparison import solve_eps, stage_error
from glesam_export.emulate import emulated
from glesam_export.verify.cases import Case
from glesam_export.verify.reference_outputs import Masks, Outputs, Step, known
from glesam_runtime import chain, compare, masks
from glesam_runtime.backends.base import Engine, Value
from glesam_runtime.backends.loading import load_engine
from glesam_runtime.bundle import Bundle
from glesam_runtime.errors import ParityError
from glesam_runtime.manifest import (
    STAGES,
    Gate,
    ImageParity,
    Manifest,
    Parity,
    PrecisionName,
    StageError,
)


def measure(
    bundle: Bundle, cases: Sequence[Case], reference: Sequence[Outputs], step: Step
) -> Parity:
    """Run a bundle on every case and measure it against the reference.

    fp32 graphs run unchanged. In other graphs `emulate` computes in float32 and rounds every
    half-precision result, so that the figures do not depend on the kernels of this CPU.
    """
    precision = compare.coarsest([bundle.manifest.stages[s].precision for s in STAGES])
    if precision == "fp32":
        return _measure(bundle, "onnxruntime", precision, cases, reference, step)
    with tempfile.TemporaryDirectory() as folder:
        with step(f"graphs that round to {precision}"):
            rewritten = emulated(bundle, Path(folder))
        name = f"onnxruntime, results rounded to {precision}"
        return _measure(rewritten, name, precision, cases, reference, step)


def _measure(
    bundle: Bundle,
    backend: str,
    precision: PrecisionName,
    cases: Sequence[Case],
    reference: Sequence[Outputs],
    step: Step,
) -> Parity:
    """Run the graphs, one stage at a time, and compare their outputs with the gate."""
    found = _run(bundle, cases, reference, step)
    images = tuple(
        _image_parity(case, mine, theirs, bundle.manifest)
        for case, mine, theirs in zip(cases, found, reference, strict=True)
    )
    gate = compare.gate_for(precision, bundle.manifest.model.trained)
    return Parity(backend=backend, gate=gate, passed=not failures(gate, images), images=images)


def failures(gate: Gate, images: Sequence[ImageParity]) -> list[str]:
    """List what is outside the gate, one line each."""
    worst_errors = {
        f"{image.image} {image.level}{_at(image)} {stage}": error.relative_l2
        for image in images
        for stage, error in image.errors.items()
    }
    mean = float(np.mean([image.mask_iou_mean for image in images]))
    worst = min(image.mask_iou_worst for image in images)
    return compare.failures(gate, worst_errors, mean, worst)


def _at(image: ImageParity) -> str:
    """Return the timestep of a figure in words; "" for a bundle with one."""
    return "" if isinstance(image.timestep, UnsetType) else f" at timestep {image.timestep}"


def require(parity: Parity, what: str, remedy: str = "") -> None:
    """Raise an error unless the bundle passed its gate.

    Args:
        parity: the measured figures.
        what: name of the bundle, for the message.
        remedy: what the user can do, for the message.

    Raises:
        ParityError: names the figures outside the gate.
    """
    if not parity.passed:
        problems = failures(parity.gate, parity.images)
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        words = f"{'; '.join(problems[:3])}{more}"
        raise ParityError(f"{what}: outside its gate: {words}{remedy and f'; {remedy}'}")


def _run(
    bundle: Bundle, cases: Sequence[Case], reference: Sequence[Outputs], step: Step
) -> list[Outputs]:
    """Run a bundle: each stage on the reference's inputs, and chained on the bundle's own."""
    manifest = bundle.manifest
    found = [Outputs() for _ in cases]
    chained_z_h: list[NDArray[np.float32]] = []
    with step("bundle encoder"):
        engine = load_engine(bundle, "onnxruntime", stages=["encoder"])
        done: dict[int, Outputs] = {}
        for case, mine in zip(cases, found, strict=True):
            if (same := done.setdefault(id(case.prepared), mine)) is not mine:
                mine.z_l, mine.high_res = same.z_l, same.high_res
                continue
            mine.high_res = _encode(engine, manifest, case.prepared.tensor)
            mine.z_l = mine.high_res.pop(chain.EMBEDDINGS)
        del engine
    with step("bundle enhancer"):
        engine = load_engine(bundle, "onnxruntime", stages=["enhancer"])
        for case, mine, theirs in zip(cases, found, reference, strict=True):
            z_l, timestep = known(theirs.z_l), _timestep(case)
            enhanced = _enhance(engine, manifest, z_l, timestep).astype(np.float64)
            mine.z_h, mine.eps = enhanced, solve_eps(z_l, enhanced, manifest, timestep)
            chained_z_h.append(_enhance(engine, manifest, known(mine.z_l), timestep))
        del engine
    with step("bundle decoder"):
        engine = load_engine(bundle, "onnxruntime", stages=["decoder"])
        for case, mine, theirs, z_h in zip(cases, found, reference, chained_z_h, strict=True):
            for kind, prompts in case.prompts.items():
                given = {chain.EMBEDDINGS: known(theirs.z_h).astype(np.float32), **theirs.high_res}
                mine.decoded[kind] = _decode(engine, given, prompts)
                own = {chain.EMBEDDINGS: z_h, **mine.high_res}
                mine.chained[kind] = _decode(engine, own, prompts)
        del engine
    return found


def _keep(engine: Engine, value: Value) -> NDArray[np.float32]:
    """Copy a value to the host. The engine's own buffer would keep gigabytes of memory alive."""
    return np.array(engine.to_host(value))


def _encode(
    engine: Engine, manifest: Manifest, image: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Call the encoder and copy every feature to the host."""
    encoded = chain.encode(engine, manifest, image)
    return {name: _keep(engine, value) for name, value in encoded.items()}


def _timestep(case: Case) -> int | None:
    return None if case.timestep is None else case.timestep.timestep


def _enhance(
    engine: Engine, manifest: Manifest, z_l: NDArray[np.float32], timestep: int | None
) -> NDArray[np.float32]:
    """Call the enhancer and copy its output to the host."""
    enhanced = chain.enhance(engine, manifest, {chain.EMBEDDINGS: z_l}, timestep)
    return _keep(engine, enhanced[chain.EMBEDDINGS])


def _decode(
    engine: Engine, features: chain.Features, prompts: Mapping[str, NDArray[np.float32]]
) -> Masks:
    """Call the decoder and copy its outputs to the host."""
    low_res, iou = chain.decode(engine, features, prompts)
    return np.array(low_res), np.array(iou)


def _image_parity(case: Case, mine: Outputs, theirs: Outputs, manifest: Manifest) -> ImageParity:
    """Compute the figures of one case."""
    ious = [
        compare.mask_iou(got, wanted)
        for kind in case.prompts
        for got, wanted in zip(
            _full_size(mine.chained[kind], case, manifest),
            _full_size(theirs.decoded[kind], case, manifest),
            strict=True,
        )
    ]
    decoded = [
        _error(*(np.concatenate([o.decoded[k][i] for k in case.prompts]) for o in (mine, theirs)))
        for i in (0, 1)  # low_res_masks, iou_predictions
    ]
    encoded = [_error(mine.z_l, theirs.z_l)]
    encoded += [_error(mine.high_res[name], theirs.high_res[name]) for name in theirs.high_res]
    return ImageParity(
        image=case.name,
        level=case.level,
        errors={
            "encoder": max(encoded, key=lambda error: error.relative_l2),
            "enhancer": _error(mine.z_h, theirs.z_h),
            "eps": _error(mine.eps, theirs.eps),
            "decoder": max(decoded, key=lambda error: error.relative_l2),
        },
        mask_iou_mean=float(np.mean(ious)),
        mask_iou_worst=float(np.min(ious)),
        timestep=UNSET if case.timestep is None else case.timestep.timestep,
    )


def _full_size(decoded: Masks, case: Case, manifest: Manifest) -> NDArray[np.bool_]:
    """Return all masks of a decoder call at the image's size: [B * 4, H, W]."""
    geometry = case.prepared.geometry
    binary = masks.binarize(decoded[0], geometry, manifest.postprocessing).masks
    return binary.reshape(-1, *geometry.original)


def _error(
    actual: NDArray[np.floating] | None, expected: NDArray[np.floating] | None
) -> StageError:
    """Compute relative L2 and largest difference."""
    return stage_error(known(actual), known(expected))
