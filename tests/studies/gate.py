"""Measure what a gate saves and costs on nano, and write docs/gate.md.

Usage: python -m tests.studies.gate measure FOLDER [SEED ...]
       python -m tests.studies.gate page FOLDER PAGE

`measure` keeps a file of each picture in FOLDER, so it can be interrupted, and several processes
can share the work. For each seed a gate learns from the scenes of the other seeds and is tested on
its own, which it has not seen, and on scikit-image's coins. On the first scenes of each seed it
also measures z_L + s (z_H - z_L) for some s between 0 and 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glesam_calibration import gate_fit
from glesam_calibration.gate import PENALTY, Source, learn_gate
from glesam_calibration.gate_cases import GateCases, Pictures, measure_cases
from glesam_evaluation.conditions import CONDITIONS
from glesam_evaluation.datasets import SceneDataset
from glesam_evaluation.segmenters import BundleStages
from glesam_runtime import chain
from glesam_runtime.bundle import Bundle, open_bundle
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.enhancement_gate import GateTarget
from glesam_training.nano.coins import Coins

SEEDS = (0, 1, 2)
SCENES, FIRST = 120, 5_000_000
"""Scenes of each seed, and the first scene of seed 0. Nothing else uses these."""
BETWEEN, BETWEEN_SCENES = (0.25, 0.5, 0.75), 20
"""The values of s, and the scenes of each seed that they are measured on."""
TARGETS: tuple[GateTarget, ...] = ("latent", "agreement", "iou")
COINS = "coins"
GUIDE = (Path(__file__).parent / "gate.md").read_text(encoding="utf-8")


def pictures_of(seed: int) -> Iterator[tuple[str, Pictures]]:
    """Yield the name of each picture of a seed, and the picture; the coins come first."""
    yield COINS, Pictures(Coins(), 1)
    for number in range(FIRST + 1000 * seed, FIRST + 1000 * seed + SCENES):
        yield f"scene-{number}", Pictures(SceneDataset(1, number), 1)


class PartlyEnhanced(BundleStages):
    """Stages whose enhancer goes only a share of the way from z_L to z_H."""

    share = 1.0

    def enhance(self, embeddings: Any) -> Any:
        """Return z_L + share (z_H - z_L) in place of z_L."""
        enhanced = super().enhance(embeddings)
        if self.share == 1:
            return enhanced
        z_l, z_h = self.latent(embeddings), self.latent(enhanced)
        return {**embeddings, chain.EMBEDDINGS: (z_l + self.share * (z_h - z_l))[None]}


def measure(folder: Path, seeds: Sequence[int]) -> None:
    """Measure the pictures that no process has measured or works on."""
    stages = PartlyEnhanced(open_bundle(), "openvino", options=EngineOptions(threads=1))
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for number, (name, pictures) in enumerate(pictures_of(seed)):
            file, claim = folder / f"{seed}-{name}.npz", folder / f"{seed}-{name}.claim"
            try:
                os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            try:
                arrays = measured_arrays(stages, pictures, seed, between=number <= BETWEEN_SCENES)
                np.savez(file.with_suffix(".partial.npz"), **arrays)
                file.with_suffix(".partial.npz").rename(file)
            finally:
                if not file.exists():
                    claim.unlink()


def measured_arrays(
    stages: PartlyEnhanced, pictures: Pictures, seed: int, *, between: bool
) -> dict[str, NDArray[Any]]:
    """Return what `read` reads: scores and kinds by target, features, and scores in between."""

    def cases_of(share: float, targets: Sequence[GateTarget]) -> dict[GateTarget, GateCases]:
        stages.share = share
        return measure_cases(stages, pictures, CONDITIONS, targets, seed, lambda done, total: None)

    found = cases_of(1.0, TARGETS)
    arrays: dict[str, NDArray[Any]] = {"features": found["iou"].features}
    for target, cases in found.items():
        arrays[f"{target}/scores"], arrays[f"{target}/kinds"] = cases.scores, cases.kinds
    if between:
        scores = [cases_of(share, ["iou"])["iou"].scores[:, 1] for share in BETWEEN]
        arrays["between"] = np.stack(scores, axis=1)
    return arrays


@dataclass(frozen=True, eq=False)
class Measured:
    """All cases of the study by target, with the seed and the group of each."""

    cases: dict[GateTarget, GateCases]
    seeds: dict[GateTarget, NDArray[np.int64]]
    coins: dict[GateTarget, NDArray[np.bool_]]
    between: NDArray[np.float64]
    """[N, 3], the IoU of the cases of the target `iou` at each share of BETWEEN, or NaN."""


def read(folder: Path) -> Measured:
    """Read what `measure` kept."""
    files = sorted(f for f in folder.glob("*.npz") if ".partial" not in f.name)
    cases, seeds, coins = {}, {}, {}
    between = []
    for target in TARGETS:
        parts, numbers, own, photo = [], [], [], []
        for number, file in enumerate(files):
            stored = np.load(file)
            kinds, scores = stored[f"{target}/kinds"], stored[f"{target}/scores"]
            where = [list(stored["iou/kinds"]).index(kind) for kind in kinds]
            parts.append((stored["features"][where], scores, kinds))
            numbers += [number] * len(kinds)
            own += [int(file.name.split("-")[0])] * len(kinds)
            photo += [COINS in file.name] * len(kinds)
            if target == "iou":
                unknown = np.full((len(kinds), len(BETWEEN)), np.nan)
                between.append(stored.get("between", unknown))
        features, scores, kinds = (np.concatenate(each) for each in zip(*parts, strict=True))
        gains = scores[:, 1] - scores[:, 0]
        cases[target] = GateCases(features, gains, scores, np.array(numbers), kinds)
        seeds[target], coins[target] = np.array(own), np.array(photo)
    return Measured(cases, seeds, coins, np.concatenate(between))


@dataclass(frozen=True, eq=False)
class Tested:
    """What the gates of all seeds decide about cases that they have not seen, judged by IoU."""

    cases: GateCases
    taken: NDArray[np.bool_]
    estimates: NDArray[np.float64]


def tested(
    found: Measured, bundle: Bundle, target: GateTarget, seed: int, *, leave_kinds: bool
) -> Tested:
    """Learn from the scenes of the other seeds, and decide about the pictures of this seed.

    With `leave_kinds` each condition is decided by a gate that has learned from the others only.
    """
    judged = found.cases["iou"]
    here = found.seeds["iou"] == seed
    test = judged.some(here)
    learn = (found.seeds[target] != seed) & ~found.coins[target]
    source = Source("scenes", seed)
    estimates = np.zeros(len(test.gains))
    taken = np.zeros(len(test.gains), np.bool_)
    for kind in np.unique(test.kinds) if leave_kinds else [""]:
        given = found.cases[target].some(learn & (found.cases[target].kinds != kind))
        gate, _ = learn_gate(bundle, given, target, source)
        inside = (test.kinds == kind) | (kind == "")
        value = test.features[inside] @ np.asarray(gate.weights) + gate.bias
        estimates[inside], taken[inside] = value, value > gate.threshold
    return Tested(test, taken, estimates)


def figures(tests: Sequence[Tested]) -> dict[str, tuple[float, ...]]:
    """Return for each condition: never, always, auto and the best choice in IoU, share enhanced."""
    rows = {}
    for kind in CONDITIONS:
        parts = []
        for each in tests:
            here = each.cases.kinds == kind
            scores, taken = each.cases.scores[here], each.taken[here]
            auto = np.where(taken, scores[:, 1], scores[:, 0])
            parts.append(np.column_stack([scores, auto, scores.max(axis=1), taken]))
        rows[kind] = tuple(np.concatenate(parts).mean(axis=0))
    return rows


def condition_table(tests: Sequence[Tested]) -> str:
    """Return the figures of each condition as Markdown; IoU in points."""
    lines = [
        "| condition | never | always | auto | best choice | auto against the better | enhanced |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows = figures(tests)
    rows["mean"] = tuple(np.mean(list(rows.values()), axis=0))
    for kind, (never, always, auto, best, share) in rows.items():
        against = 100 * (auto - max(never, always))
        lines.append(
            f"| {kind} | {100 * never:.2f} | {100 * always:.2f} | {100 * auto:.2f} | "
            f"{100 * best:.2f} | {against:+.3f} | {100 * share:.0f} % |"
        )
    return "\n".join(lines)


def target_table(found: Measured, bundle: Bundle, seeds: Sequence[int]) -> str:
    """Return what each target gives, on conditions that it has learned from and on others."""
    lines = [
        "| target | conditions | correlation | enhanced | mean IoU | worst condition | "
        "conditions that lose over 0.05 |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for target in TARGETS:
        for leave in (False, True):
            if leave and target != "iou":
                continue
            tests = [tested(found, bundle, target, seed, leave_kinds=leave) for seed in seeds]
            rows = figures(tests)
            losses = {kind: max(row[0], row[1]) - row[2] for kind, row in rows.items()}
            worst = max(losses, key=lambda kind: losses[kind])
            mean = np.mean(list(rows.values()), axis=0)
            estimates = np.concatenate([each.estimates for each in tests])
            gains = np.concatenate([each.cases.gains for each in tests])
            many = sum(loss > gate_fit.TOLERANCE for loss in losses.values())
            lines.append(
                f"| {target} | {'left out' if leave else 'learned'} | "
                f"{gate_fit.correlation(estimates, gains):.2f} | {100 * mean[4]:.0f} % | "
                f"{100 * mean[2]:.2f} | {worst}, {-100 * losses[worst]:+.3f} | "
                f"{many} of {len(rows)} |"
            )
    return "\n".join(lines)


def told_table(found: Measured, seeds: Sequence[int]) -> str:
    """Return what a gate would lose that is told the condition, as words.

    It knows the condition's mean gain on the scenes of the other seeds, as well as anything can
    know it from them.
    """
    tests = []
    for seed in seeds:
        test = found.cases["iou"].some(found.seeds["iou"] == seed)
        learn = found.cases["iou"].some((found.seeds["iou"] != seed) & ~found.coins["iou"])
        means = {kind: learn.gains[learn.kinds == kind].mean() for kind in CONDITIONS}
        estimates = np.array([means[kind] for kind in test.kinds])
        tests.append(Tested(test, estimates > 0, estimates))
    losses = {kind: max(row[0], row[1]) - row[2] for kind, row in figures(tests).items()}
    over = {kind: loss for kind, loss in losses.items() if loss > gate_fit.TOLERANCE}
    listed = ", ".join(f"{kind} {100 * loss:.3f}" for kind, loss in over.items())
    errors = [
        100 * np.std(gains) / np.sqrt(len(gains))
        for kind in CONDITIONS
        for gains in [found.cases["iou"].gains[found.cases["iou"].kinds == kind]]
    ]
    named = f"{len(over)} of {len(CONDITIONS)} conditions" + (f" ({listed})" if listed else "")
    return (
        f"{named}. The standard error of a condition's mean gain is {np.median(errors):.3f} "
        f"points in the median, and up to {max(errors):.3f}"
    )


def between_table(found: Measured, seeds: Sequence[int]) -> str:
    """Return the mean IoU of each share s of the way from z_L to z_H, as Markdown.

    "By estimates" takes for each picture the share whose gain a fit on the scenes of the other
    seeds estimates highest, and 0 if all are negative.
    """
    known = ~np.isnan(found.between[:, 0])
    cases, own = found.cases["iou"].some(known), found.seeds["iou"][known]
    photo = found.coins["iou"][known]
    shares = (0.0, *BETWEEN, 1.0)
    scores = np.column_stack([cases.scores[:, 0], found.between[known], cases.scores[:, 1]])
    lines = [
        "| measured on | conditions | "
        + " | ".join(f"s = {share:g}" for share in shares)
        + " | by estimates, s 0 or 1 | by estimates, any s | best of each picture |",
        "|---|---|" + "---:|" * (len(shares) + 3),
    ]
    for leave in (False, True):
        taken = np.zeros((len(scores), 2), np.int64)
        for seed in seeds:
            for kind in np.unique(cases.kinds) if leave else [""]:
                learn = (own != seed) & ~photo & (cases.kinds != kind)
                test = (own == seed) & ((cases.kinds == kind) | (kind == ""))
                gains = np.zeros((test.sum(), len(shares)))
                for column in range(1, len(shares)):
                    gained = scores[learn, column] - scores[learn, 0]
                    expected = gate_fit.expected_gains(gained, cases.kinds[learn])
                    fitted = gate_fit.fit_ridge(cases.features[learn], expected, PENALTY)
                    gains[:, column] = fitted(cases.features[test])
                taken[test, 0] = np.where(gains[:, -1] > 0, len(shares) - 1, 0)
                taken[test, 1] = gains.argmax(axis=1)
        chosen = [np.take_along_axis(scores, taken[:, [k]], axis=1).mean() for k in (0, 1)]
        row = [*scores.mean(axis=0), *chosen, scores.max(axis=1).mean()]
        name = "left out" if leave else "learned"
        lines.append(
            f"| {len(np.unique(cases.pictures))} pictures | {name} | "
            + " | ".join(f"{100 * value:.2f}" for value in row)
            + " |"
        )
    return "\n".join(lines)


def seed_table(tests: Mapping[int, Tested]) -> str:
    """Return the figures of each seed as Markdown."""
    lines = [
        "| seed | pictures | never | always | auto | best choice | enhanced |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for seed, each in tests.items():
        never, always, auto, best, share = np.mean(list(figures([each]).values()), axis=0)
        lines.append(
            f"| {seed} | {len(np.unique(each.cases.pictures))} | {100 * never:.2f} | "
            f"{100 * always:.2f} | {100 * auto:.2f} | {100 * best:.2f} | {100 * share:.0f} % |"
        )
    return "\n".join(lines)


def write_page(folder: Path, page: Path) -> None:
    """Write the page from what `measure` kept."""
    found, bundle = read(folder), open_bundle()
    seeds = sorted(set(map(int, found.seeds["iou"])))
    tests = {seed: tested(found, bundle, "iou", seed, leave_kinds=False) for seed in seeds}
    count = len(np.unique(found.cases["iou"].pictures))
    text = GUIDE
    for name, part in (
        ("CONDITIONS", condition_table(list(tests.values()))),
        ("SEEDS", seed_table(tests)),
        ("TARGETS", target_table(found, bundle, seeds)),
        ("TOLD", told_table(found, seeds)),
        ("BETWEEN", between_table(found, seeds)),
        ("COUNT", str(count)),
    ):
        text = text.replace("{" + name + "}", part)
    page.write_text(text, encoding="utf-8")
    print(f"wrote {page}")


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        measure(Path(sys.argv[2]), [int(word) for word in sys.argv[3:]] or SEEDS)
    else:
        write_page(Path(sys.argv[2]), Path(sys.argv[3]))
