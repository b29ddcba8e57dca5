"""Compare an engine with a bundle's golden file, for each stage and for the whole chain."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime import chain, compare, masks
from glesam_runtime.bundle import Bundle, load_golden
from glesam_runtime.image import preprocess
from glesam_runtime.manifest import STAGES, Gate
from glesam_runtime.timestep_levels import golden_name, levels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine

_PROMPT_INPUTS = ("point_coords", "point_labels", "mask_input", "has_mask_input")


@dataclass(frozen=True)
class OutputError:
    """The error of one output of a stage. The stage's input comes from the golden file."""

    stage: str
    output: str
    relative_l2: float
    max_abs: float


@dataclass(frozen=True)
class SelftestResult:
    """The comparison of an engine on this machine with the reference's golden tensors."""

    engine: dict[str, str]
    errors: tuple[OutputError, ...]
    mask_iou_mean: float
    """The IoU of the masks of the whole chain, at the image's own size."""
    mask_iou_worst: float
    gate: Gate
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Return whether every figure is within its limit."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dict that can be written as JSON."""
        gate = {name: getattr(self.gate, name) for name in self.gate.__struct_fields__}
        return {**asdict(self), "gate": gate, "passed": self.passed}


def check(bundle: Bundle, engine: Engine) -> SelftestResult:
    """Run the golden image and prompts, and compare the results with the golden tensors.

    Args:
        bundle: the bundle, whose precision decides the limits.
        engine: an engine with all three stages loaded.

    Raises:
        BundleError: the golden file cannot be used.
        BackendError: the engine failed.
    """
    golden = load_golden(bundle)
    manifest = bundle.manifest
    prepared = preprocess(golden["image"].astype(np.uint8), manifest.preprocessing)
    expected: dict[str, NDArray[np.float32]] = {
        name: np.asarray(tensor, np.float32) for name, tensor in golden.items() if name != "image"
    }
    prompts = {name: expected[name] for name in _PROMPT_INPUTS}

    names = [spec.name for spec in manifest.stages["encoder"].outputs]
    given: chain.Features = {name: expected[name] for name in names}
    encoded = chain.encode(engine, manifest, prepared.tensor)
    own = manifest.model.timestep
    others = [level.timestep for level in levels_of(manifest) if level.timestep != own]
    at_levels: list[tuple[int | None, str]] = [(None, "enhanced_embeddings")]
    at_levels += [(step, golden_name(step)) for step in others]
    enhanced = {
        name: engine.to_host(chain.enhance(engine, manifest, given, step)[chain.EMBEDDINGS])
        for step, name in at_levels
    }
    reference = {**given, chain.EMBEDDINGS: expected["enhanced_embeddings"]}
    low_res, iou = chain.decode(engine, reference, prompts)
    errors = tuple(
        OutputError(
            stage,
            name,
            compare.relative_l2(actual, expected[name]),
            compare.max_abs(actual, expected[name]),
        )
        for stage, name, actual in (
            *(("encoder", name, engine.to_host(encoded[name])) for name in names),
            *(("enhancer", name, found) for name, found in enhanced.items()),
            ("decoder", "low_res_masks", low_res),
            ("decoder", "iou_predictions", iou),
        )
    )

    whole, _ = chain.decode(engine, chain.enhance(engine, manifest, encoded), prompts)
    rules, geometry = manifest.postprocessing, prepared.geometry
    found = masks.binarize(whole, geometry, rules).masks
    wanted = masks.binarize(expected["low_res_masks"], geometry, rules).masks
    size = found.shape[-2:]
    ious = [
        compare.mask_iou(mine, theirs)
        for mine, theirs in zip(found.reshape(-1, *size), wanted.reshape(-1, *size), strict=True)
    ]
    # The coarsest stage decides the gate, because its error is in every mask.
    precision = compare.coarsest([manifest.stages[stage].precision for stage in STAGES])
    gate = compare.gate_for(precision, manifest.model.trained)
    mean, worst = float(np.mean(ious)), float(np.min(ious))
    stage_errors = {f"{error.stage} {error.output}": error.relative_l2 for error in errors}
    failures = tuple(compare.failures(gate, stage_errors, mean, worst))
    return SelftestResult(engine.describe(), errors, mean, worst, gate, failures)
