"""Learn a gate from measured cases, and put it into a bundle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import structs

from glesam_calibration import gate_fit
from glesam_calibration.gate_cases import GateCases
from glesam_runtime.bundle import Bundle, builtin_bundle_path
from glesam_runtime.enhancement_gate import EnhancementGate, GateTarget, GateTraining
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import MANIFEST_FILE
from glesam_runtime.manifest_file import dump, file_refs
from glesam_runtime.staging import staged_file, staged_folder

PENALTY = 0.003
"""Of the weights of standardised features. docs/adr/0027 compares others on nano."""
FEWEST_PICTURES = 2 * gate_fit.FOLDS


@dataclass(frozen=True)
class Source:
    """Where cases are from, for the gate's record."""

    data: str
    seed: int


def learn_gate(
    bundle: Bundle,
    cases: GateCases,
    target: GateTarget,
    source: Source,
    judged_by: GateCases | None = None,
) -> tuple[EnhancementGate, gate_fit.Outcome]:
    """Fit a gate, and choose its threshold on pictures that a fit has not seen.

    Args:
        bundle: the bundle that the cases were measured on.
        cases: the cases.
        target: what their gains are.
        source: where they are from.
        judged_by: the same cases by another target, to choose the threshold by; None is `cases`.

    Returns:
        The gate, and what its threshold does to those pictures.

    Raises:
        InputError: there are too few pictures, or values that are not finite.
    """
    pictures = len(np.unique(cases.pictures))
    check_count(source.data, pictures)
    if not (np.isfinite(cases.features).all() and np.isfinite(cases.gains).all()):
        raise InputError(
            f"{bundle.path}: its encoder or enhancer returned NaN or infinity; test the bundle "
            "with 'glesam-run --selftest'"
        )
    folds = gate_fit.folds_of(cases.pictures)
    expected = gate_fit.expected_gains(cases.gains, cases.kinds)
    estimates = gate_fit.held_out_estimates(cases.features, expected, folds, PENALTY)
    judge = cases if judged_by is None else judged_by
    threshold = gate_fit.choose_threshold(judge.gains, judge.kinds, estimates)
    area, curve = gate_fit.curve_of(judge.gains, estimates)
    fitted = gate_fit.fit_ridge(cases.features, expected, PENALTY)
    gate = EnhancementGate(
        encoder=bundle.stage_sha256("encoder"),
        enhancer=bundle.stage_sha256("enhancer"),
        features="channel_moments",
        weights=tuple(map(float, fitted.weights)),
        bias=fitted.bias,
        threshold=threshold,
        target=target,
        training=GateTraining(
            data=source.data,
            pictures=pictures,
            cases=len(cases.gains),
            kinds=tuple(dict.fromkeys(map(str, cases.kinds))),
            seed=source.seed,
            correlation=gate_fit.correlation(estimates, judge.gains),
            area=area,
            curve=curve,
        ),
    )
    return gate, gate_fit.outcome(judge.gains, judge.kinds, estimates, threshold)


def check_count(data: str, pictures: int) -> None:
    """Refuse too few pictures, which cannot be split into those to fit and those to judge by.

    Raises:
        InputError: there are fewer than FEWEST_PICTURES.
    """
    if pictures < FEWEST_PICTURES:
        raise InputError(f"{data}: {pictures} pictures; a gate needs at least {FEWEST_PICTURES}")


def check_destination(bundle: Bundle, output: Path | None) -> None:
    """Refuse to write into the built-in bundle or into a download, before long work.

    Raises:
        InputError: `output` is needed.
    """
    if output is not None:
        return
    if bundle.path.resolve() == builtin_bundle_path().resolve():
        raise InputError("the built-in bundle stays as it is; add -o DIR for a copy with a gate")
    if bundle.snapshot is not None:
        raise InputError(
            f"{bundle.path}: is the download of a repository; add -o DIR for a copy with a gate"
        )


def write_gate(bundle: Bundle, gate: EnhancementGate, output: Path | None) -> Path:
    """Put a gate into a bundle, or into a copy of it; the old one is replaced.

    Args:
        bundle: the bundle.
        gate: the gate.
        output: the folder of the copy; None replaces the bundle's manifest.json.

    Returns:
        The folder of the bundle with the gate.

    Raises:
        InputError: the place cannot be written. Nothing has changed then.
    """
    content = dump(structs.replace(bundle.manifest, enhancement_gate=gate))
    if output is None or output.resolve() == bundle.path.resolve():
        with staged_file(bundle.path / MANIFEST_FILE) as partial:
            partial.write_bytes(content)
        return bundle.path
    with staged_folder(output) as folder:
        for ref in file_refs(bundle.manifest):
            shutil.copyfile(bundle.path / ref.file, folder / ref.file)
        # Written last, so that no reader accepts an incomplete folder as a bundle.
        (folder / MANIFEST_FILE).write_bytes(content)
    return output


def table_of(outcome: gate_fit.Outcome) -> str:
    """Return a table of what the gate loses in each condition, for a terminal."""
    lines = [f"{'condition':<22}{'lost, points':>14}"]
    lines += [f"{kind:<22}{100 * loss:>14.3f}" for kind, loss in outcome.losses.items()]
    return "\n".join(lines)
