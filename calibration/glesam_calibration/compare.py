"""A quantized bundle beside the float one it was made of: stage errors, masks, and the truth.

One stage is run at a time, so that no two large graphs are in memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from glesam_calibration.cases import Cases, Question, ask
from glesam_calibration.comparison import BETWEEN, FLOAT, QUANTIZED, Comparison
from glesam_calibration.figures import solve_eps, stage_error
from glesam_evaluation import metrics
from glesam_evaluation.protocol import Row
from glesam_runtime import chain, golden, masks
from glesam_runtime.backends import load_engine
from glesam_runtime.backends.base import Engine, Value
from glesam_runtime.bundle import Bundle
from glesam_runtime.image import Geometry, preprocess
from glesam_runtime.manifest import (
    STAGES,
    ImageParity,
    Manifest,
    ParityOutput,
    StageError,
    StageName,
)

Array = NDArray[np.float32]
ENGINE = "onnxruntime"
_AT_ONCE = 8
"""Images whose features are in memory together."""


@dataclass(eq=False)
class Outputs:
    """A bundle's outputs for one case."""

    features: dict[str, Array]
    """Of the encoder on the image."""
    enhanced: Array | None = None
    """Of the enhancer on the float bundle's features."""
    chained: Array | None = None
    """Of the enhancer on the bundle's own."""


class Yardstick:
    """The float bundle's answers, computed once and compared with any number of others.

    It holds the features and logits of all its cases; `compare_in_parts` is for more of them.
    """

    def __init__(self, bundle: Bundle, cases: Cases) -> None:
        """Run the float bundle.

        Raises:
            BackendError: the engine is missing or cannot run it.
            InputError: an image cannot be read.
        """
        self.bundle, self.cases = bundle, cases
        self._questions = [
            ask(cases, index, level, bundle.manifest) for index, level in cases.each()
        ]
        self._outputs = self._encode(bundle)
        engine = load_engine(bundle, ENGINE, stages=["enhancer"])
        for outputs in self._outputs:
            outputs.enhanced = outputs.chained = _enhance(engine, bundle, outputs.features)
        del engine
        decoder = load_engine(bundle, ENGINE, stages=["decoder"])
        self._expected = [
            _answers(decoder, question, outputs.features, outputs.chained)
            for question, outputs in zip(self._questions, self._outputs, strict=True)
        ]

    def judge(self, other: Bundle) -> Comparison:
        """Compare a bundle with the float one, and run its golden check.

        Args:
            other: of the same model, with its golden file in place.

        Raises:
            BundleError: the golden file cannot be used.
            BackendError: the engine is missing or cannot run it.
        """
        return replace(self.measure(other), golden_failures=golden_failures(other))

    def measure(self, other: Bundle, stages: Collection[StageName] = STAGES) -> Comparison:
        """Compare a bundle with the float one.

        Args:
            other: of the same model.
            stages: those that differ; nothing else of it is run.

        Raises:
            BackendError: the engine is missing or cannot run it.
        """
        mine = self._encode(other) if "encoder" in stages else self._outputs
        mine = self._enhanced(other, mine, stages)
        before = "encoder" in stages or "enhancer" in stages
        changed = "decoder" in stages
        engine = load_engine(other if changed else self.bundle, ENGINE, stages=["decoder"])
        rows: list[Row] = []
        images = []
        for number, question in enumerate(self._questions):
            found, wanted = mine[number], self._outputs[number]
            expected = alone = self._expected[number]
            if changed:
                alone = _answers(engine, question, wanted.features, wanted.chained)
            chained = alone
            if before:
                chained = _answers(engine, question, found.features, found.chained)
            case_rows = list(_rows(question, chained, expected, self.bundle.manifest))
            between = [row.iou for row in case_rows if row.segmenter == BETWEEN]
            images.append(
                ImageParity(
                    image=question.image,
                    level=question.level,
                    errors={
                        **_stage_errors(found, wanted, self.bundle.manifest),
                        "decoder": _decoder_error(alone, expected),
                    },
                    mask_iou_mean=float(np.mean(between)),
                    mask_iou_worst=min(between),
                )
            )
            rows += case_rows
        return Comparison(tuple(rows), tuple(images))

    def _encode(self, bundle: Bundle) -> list[Outputs]:
        engine = load_engine(bundle, ENGINE, stages=["encoder"])
        found = []
        for index, level in self.cases.each():
            image = self.cases.image(index, level)
            tensor = preprocess(image, bundle.manifest.preprocessing).tensor
            encoded = chain.encode(engine, bundle.manifest, tensor)
            # A copy: the engine's own buffer would keep its arena, gigabytes, alive.
            found.append(Outputs({n: np.array(engine.to_host(v)) for n, v in encoded.items()}))
        return found

    def _enhanced(
        self, other: Bundle, mine: Sequence[Outputs], stages: Collection[StageName]
    ) -> list[Outputs]:
        """Features as `other` enhances them; its own, and those of the float bundle."""
        if "encoder" not in stages and "enhancer" not in stages:
            return list(mine)
        changed = "enhancer" in stages
        engine = load_engine(other if changed else self.bundle, ENGINE, stages=["enhancer"])
        found = []
        for own, wanted in zip(mine, self._outputs, strict=True):
            chained = _enhance(engine, other, own.features)
            enhanced = wanted.enhanced
            if changed:
                same = own.features is wanted.features
                enhanced = chained if same else _enhance(engine, other, wanted.features)
            found.append(Outputs(own.features, enhanced, chained))
        return found


def compare_in_parts(
    bundle: Bundle,
    other: Bundle,
    cases: Cases,
    progress: Callable[[int, int], object] | None = None,
) -> Comparison:
    """Compare two bundles on any number of images, a few in memory at a time.

    Args:
        bundle: the float one.
        other: made of it.
        cases: what on.
        progress: told after each part how many images are done, and of how many.
    """
    rows: list[Row] = []
    images: list[ImageParity] = []
    end = min(cases.first + cases.count, len(cases.dataset))
    for first in range(cases.first, end, _AT_ONCE):
        part = replace(cases, first=first, count=min(_AT_ONCE, end - first))
        found = Yardstick(bundle, part).measure(other)
        rows += found.rows
        images += found.images
        if progress is not None:
            progress(first + part.count - cases.first, end - cases.first)
    return Comparison(tuple(rows), tuple(images))


def golden_failures(bundle: Bundle) -> tuple[str, ...]:
    """Run the golden check of a bundle, as `glesam-run --selftest` does, and return what fails.

    A reader refuses a bundle that fails this check, so a calibration must not write one.

    Args:
        bundle: a folder with all three graphs and the golden file, with or without a manifest file.

    Raises:
        BundleError: the golden file cannot be used.
        BackendError: the engine is missing or cannot run it.
    """
    return golden.check(bundle, _OneStageLoaded(bundle)).failures


class _OneStageLoaded:
    """An engine that keeps one stage in memory, and returns every output on the host."""

    name, device = "one stage at a time", "cpu"

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._loaded: tuple[StageName, Engine] | None = None

    def describe(self) -> dict[str, str]:
        """Return the description of the engine that runs the stages."""
        return {"engine": ENGINE, "device": self.device}

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph; load it first if another one is loaded."""
        if self._loaded is None or self._loaded[0] != stage:
            self._loaded = None  # frees the other graph before this one is loaded
            self._loaded = stage, load_engine(self._bundle, ENGINE, stages=[stage])
        engine = self._loaded[1]
        outputs = engine.run(stage, inputs)
        return {name: np.array(engine.to_host(value)) for name, value in outputs.items()}

    def to_host(self, value: Value) -> Array:
        """Return a value that `run` returned: it is on the host already."""
        return np.asarray(value)

    def share(self) -> Engine:
        """Refuse: stages are loaded in turn, so two threads would unload each other's."""
        raise NotImplementedError("one thread at a time")


Answers = Mapping[str, tuple[Array, Array]]
"""Logits [B,4,S/4,S/4] and predicted IoU [B,4] by the kind of prompt."""


def _answers(
    engine: Engine, question: Question, features: Mapping[str, Array], enhanced: Array | None
) -> Answers:
    """What a decoder makes of features and prompts."""
    assert enhanced is not None, "enhanced before"
    given = {**features, chain.EMBEDDINGS: enhanced}
    found = {}
    for kind, prompts in question.prompts.items():
        low_res, iou = chain.decode(engine, given, prompts)
        found[kind] = np.array(low_res), np.array(iou)
    return found


def _rows(
    question: Question, chained: Answers, expected: Answers, manifest: Manifest
) -> Iterator[Row]:
    """Figures of every mask: both bundles against the truth, and against each other."""
    for kind in question.prompts:
        found, wanted = (
            _single_masks(answers[kind], question.geometry, manifest)
            for answers in (chained, expected)
        )
        for name, predicted, against in (
            (FLOAT, wanted, question.truth),
            (QUANTIZED, found, question.truth),
            (BETWEEN, found, wanted),
        ):
            figures = [metric(predicted, against).tolist() for metric in _METRICS]
            for number, *values in zip(question.numbers, *figures, strict=True):
                yield Row(question.image, number, question.level, kind, name, *values)


_METRICS = (metrics.iou, metrics.dice, metrics.pixel_accuracy)


def _stage_errors(
    found: Outputs, wanted: Outputs, manifest: Manifest
) -> dict[ParityOutput, StageError]:
    encoder = [stage_error(found.features[n], wanted.features[n]) for n in wanted.features]
    assert found.enhanced is not None, "enhanced before"
    assert wanted.enhanced is not None, "enhanced before"
    z_l = wanted.features[chain.EMBEDDINGS]
    eps = [solve_eps(z_l, enhanced, manifest) for enhanced in (found.enhanced, wanted.enhanced)]
    return {
        "encoder": max(encoder, key=lambda error: error.relative_l2),
        "enhancer": stage_error(found.enhanced, wanted.enhanced),
        "eps": stage_error(*eps),
    }


def _enhance(engine: Engine, bundle: Bundle, features: Mapping[str, Array]) -> Array:
    enhanced = chain.enhance(
        engine, bundle.manifest, {chain.EMBEDDINGS: features[chain.EMBEDDINGS]}
    )
    return np.array(engine.to_host(enhanced[chain.EMBEDDINGS]))


def _decoder_error(alone: Answers, expected: Answers) -> StageError:
    """The larger error of the two outputs over all prompts."""
    errors = [
        stage_error(*(np.concatenate([one[kind][part] for kind in expected]) for one in pair))
        for part in (0, 1)  # low_res_masks, iou_predictions
        for pair in [(alone, expected)]
    ]
    return max(errors, key=lambda error: error.relative_l2)


def _single_masks(
    decoded: tuple[Array, Array], geometry: Geometry, manifest: Manifest
) -> NDArray[np.bool_]:
    """The decoder's single mask of each prompt, at the image's own size: [B, H, W]."""
    rules = manifest.postprocessing
    low_res, _ = masks.choose(*decoded, multimask=False, rules=rules)
    return masks.binarize(low_res[:, 0], geometry, rules).masks
