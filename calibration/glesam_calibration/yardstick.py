"""Compare quantized bundles with the float bundle: stage errors, masks, and the golden check.

Only one stage is loaded at a time, so that no two large graphs are in memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from glesam_calibration.bundle_comparison import (
    BETWEEN,
    FLOAT,
    QUANTIZED,
    Answers,
    Array,
    Comparison,
    Outputs,
    decoder_error,
    errors_before_decoder,
)
from glesam_calibration.comparison_cases import Cases, PromptedCase, prompt_case
from glesam_evaluation import metrics
from glesam_evaluation.protocol import Row
from glesam_runtime import chain, golden, masks
from glesam_runtime.backends.base import Engine, Value
from glesam_runtime.backends.loading import load_engine
from glesam_runtime.bundle import Bundle
from glesam_runtime.image import Geometry, preprocess
from glesam_runtime.manifest import (
    STAGES,
    ImageParity,
    Manifest,
    StageName,
)
from glesam_runtime.timestep_levels import levels_of

ENGINE = "onnxruntime"
_AT_ONCE = 8
"""Number of images whose features are in memory together."""


class Yardstick:
    """The outputs of the float bundle, computed once and compared with any number of other bundles.

    It keeps the features and logits of all cases in memory. For many cases use `compare_in_parts`.
    """

    def __init__(self, bundle: Bundle, cases: Cases) -> None:
        """Run the float bundle on all cases.

        Raises:
            BackendError: the engine is missing or cannot run the bundle.
            InputError: an image cannot be read.
        """
        self.bundle, self.cases = bundle, cases
        self._steps: list[int | None] = [each.timestep for each in levels_of(bundle.manifest)]
        self._steps = self._steps or [None]
        questions = [
            prompt_case(cases, index, level, bundle.manifest) for index, level in cases.each()
        ]
        self._questions = [_at(question, step) for question in questions for step in self._steps]
        self._outputs = self._encode(bundle)
        engine = load_engine(bundle, ENGINE, stages=["enhancer"])
        for outputs in self._outputs:
            outputs.enhanced = outputs.chained = _enhance(engine, bundle, outputs)
        del engine
        decoder = load_engine(bundle, ENGINE, stages=["decoder"])
        self._expected = [
            _answers(decoder, question, outputs.features, outputs.chained)
            for question, outputs in zip(self._questions, self._outputs, strict=True)
        ]

    def judge(self, other: Bundle) -> Comparison:
        """Compare a bundle with the float one, and run its golden check.

        Args:
            other: a bundle of the same model, with its golden file.

        Raises:
            BundleError: the golden file cannot be used.
            BackendError: the engine is missing or cannot run the bundle.
        """
        return replace(self.measure(other), golden_failures=golden_failures(other))

    def measure(self, other: Bundle, stages: Collection[StageName] = STAGES) -> Comparison:
        """Compare a bundle with the float one.

        Args:
            other: a bundle of the same model.
            stages: the stages that differ from the float bundle; only these are run.

        Raises:
            BackendError: the engine is missing or cannot run the bundle.
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
                        **errors_before_decoder(found, wanted, self.bundle.manifest),
                        "decoder": decoder_error(alone, expected),
                    },
                    mask_iou_mean=float(np.mean(between)),
                    mask_iou_worst=min(between),
                    timestep=UNSET if found.timestep is None else found.timestep,
                )
            )
            rows += case_rows
        return Comparison(tuple(rows), tuple(images))

    def _encode(self, bundle: Bundle) -> list[Outputs]:
        engine = load_engine(bundle, ENGINE, stages=["encoder"])
        found: list[Outputs] = []
        for index, level in self.cases.each():
            image = self.cases.image(index, level)
            tensor = preprocess(image, bundle.manifest.preprocessing).tensor
            encoded = chain.encode(engine, bundle.manifest, tensor)
            # A copy, because a view would keep the engine's memory of gigabytes alive.
            features = {n: np.array(engine.to_host(v)) for n, v in encoded.items()}
            found += [Outputs(features, timestep=step) for step in self._steps]
        return found

    def _enhanced(
        self, other: Bundle, mine: Sequence[Outputs], stages: Collection[StageName]
    ) -> list[Outputs]:
        """Return features enhanced by `other`: its own, and those of the float bundle."""
        if "encoder" not in stages and "enhancer" not in stages:
            return list(mine)
        changed = "enhancer" in stages
        engine = load_engine(other if changed else self.bundle, ENGINE, stages=["enhancer"])
        found = []
        for own, wanted in zip(mine, self._outputs, strict=True):
            chained = _enhance(engine, other, own)
            enhanced = wanted.enhanced
            if changed:
                same = own.features is wanted.features
                enhanced = chained if same else _enhance(engine, other, wanted)
            found.append(Outputs(own.features, enhanced, chained, own.timestep))
        return found


def compare_in_parts(
    bundle: Bundle,
    other: Bundle,
    cases: Cases,
    progress: Callable[[int, int], object] | None = None,
) -> Comparison:
    """Compare two bundles on any number of images, with only a few in memory at a time.

    Args:
        bundle: the float bundle.
        other: a bundle made from it.
        cases: images, levels and prompts to compare on.
        progress: called after each part with the number of finished images and their total.
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
        BackendError: the engine is missing or cannot run the bundle.
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
        """Return a value of `run`, which is on the host already."""
        return np.asarray(value)

    def share(self) -> Engine:
        """Raise NotImplementedError, because two threads would unload each other's stages."""
        raise NotImplementedError("one thread at a time")


def _answers(
    engine: Engine, question: PromptedCase, features: Mapping[str, Array], enhanced: Array | None
) -> Answers:
    """Run the decoder on features, with the prompts of a case."""
    assert enhanced is not None, "the enhancer runs before the decoder"
    given = {**features, chain.EMBEDDINGS: enhanced}
    found = {}
    for kind, prompts in question.prompts.items():
        low_res, iou = chain.decode(engine, given, prompts)
        found[kind] = np.array(low_res), np.array(iou)
    return found


def _rows(
    question: PromptedCase, chained: Answers, expected: Answers, manifest: Manifest
) -> Iterator[Row]:
    """Yield metrics of every mask: both bundles against the truth, and against each other."""
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


def _at(question: PromptedCase, timestep: int | None) -> PromptedCase:
    """Return a case of its own for a timestep."""
    if timestep is None:
        return question
    return replace(question, image=f"{question.image}, timestep {timestep}")


def _enhance(engine: Engine, bundle: Bundle, encoded: Outputs) -> Array:
    z_l = {chain.EMBEDDINGS: encoded.features[chain.EMBEDDINGS]}
    enhanced = chain.enhance(engine, bundle.manifest, z_l, encoded.timestep)
    return np.array(engine.to_host(enhanced[chain.EMBEDDINGS]))


def _single_masks(
    decoded: tuple[Array, Array], geometry: Geometry, manifest: Manifest
) -> NDArray[np.bool_]:
    """Return the single mask of each prompt at the size of the image: bool [B,H,W]."""
    rules = manifest.postprocessing
    low_res, _ = masks.choose(*decoded, multimask=False, rules=rules)
    return masks.binarize(low_res[:, 0], geometry, rules).masks
