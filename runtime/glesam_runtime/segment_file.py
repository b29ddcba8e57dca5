"""Segment one image file with prompts: write masks and an overlay."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET, convert
from PIL import Image

from glesam_runtime import masks
from glesam_runtime.draw import colour_of, draw_mask, draw_prompt
from glesam_runtime.enhancing import Branch
from glesam_runtime.errors import InputError
from glesam_runtime.image import Preprocessed, geometry_of, preprocess
from glesam_runtime.output_files import OutputFiles, refuse_inputs, save_mask, save_overlay
from glesam_runtime.prompt_requests import PromptRequest, check_request
from glesam_runtime.prompts import group_alike
from glesam_runtime.results import ImageResult, Mask, Rle, estimate_field
from glesam_runtime.rle import encode_rle
from glesam_runtime.staging import staged_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.manifest import Manifest
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.prompts import PromptBatch

_STEPS = ("encoder", "gate", "enhancer")
"""The steps of `GleSamPredictor.timings` that an image takes, before its prompts."""


@dataclass(frozen=True)
class Prepared:
    """An image and its prompts, ready for a predictor."""

    files: OutputFiles
    image: NDArray[np.uint8]
    """[H, W, 3]."""
    note: str | None
    """What may be wrong with the image."""
    encoded: Preprocessed
    prompts: list[PromptBatch]
    """One prompt each."""
    seconds: dict[str, float]


@dataclass(frozen=True)
class Inferred:
    """The predictor's results for an image and its prompts."""

    prepared: Prepared
    low_res: NDArray[np.float32]
    """[prompts, C, S/4, S/4] logits."""
    scores: NDArray[np.float32]
    """[prompts, C]."""
    branch: Branch
    seconds: dict[str, float]


@dataclass(frozen=True)
class PromptedSegmentation:
    """The work of glesam-run with prompts. For each image it writes all outputs or none."""

    manifest: Manifest
    requests: Sequence[PromptRequest]
    """One prompt for each object."""
    multimask: bool
    """Whether each prompt gets three masks; the overlay shows the one of highest predicted IoU."""
    inputs: frozenset[Path]
    """Resolved paths of all input images, which no output may overwrite."""
    depth: int | str = "auto"
    """Bits that the samples of 16-bit images use."""
    write: bool = True
    """Whether to write files."""

    def pixels(self, files: OutputFiles) -> int:
        """Return the number of pixels of the image file."""
        return files.source.pixels()

    def prepare(self, files: OutputFiles) -> Prepared:
        """Read the image and check the prompts against it.

        Raises:
            InputError: the image, a prompt or the output folder cannot be used.
        """
        start = time.perf_counter()
        image, note = files.source.read(self.depth)
        read = time.perf_counter() - start
        rules = self.manifest.preprocessing
        height, width = image.shape[:2]
        geometry = geometry_of(height, width, rules.image_size, rules.resize)
        try:
            prompts = [check_request(request, geometry) for request in self.requests]
        except InputError as error:
            raise InputError(f"{files.image}: {error}") from error
        if self.write:
            outputs = (*self._mask_paths(files), files.overlay_path)
            refuse_inputs(files, outputs, self.inputs)
        start = time.perf_counter()
        encoded = preprocess(image, rules)
        seconds = {"read": read, "preprocess": time.perf_counter() - start}
        return Prepared(files, image, note, encoded, prompts, seconds)

    def infer(self, predictor: GleSamPredictor, prepared: Prepared) -> Inferred:
        """Encode and enhance the image, then decode the prompts."""
        predictor.set_prepared(prepared.encoded)
        return self.decode(predictor, prepared)

    def decode(self, predictor: GleSamPredictor, prepared: Prepared) -> Inferred:
        """Decode prompts of the same kind together, for the image that is set."""
        side = prepared.encoded.geometry.image_size // 4
        low_res = np.empty((len(self.requests), self._per_prompt, side, side), np.float32)
        scores = np.empty((len(self.requests), self._per_prompt), np.float32)
        decoder = 0.0
        for members, batch in group_alike(prepared.prompts):
            low_res[members], scores[members] = predictor.decode(batch, self.multimask)
            decoder += predictor.timings["decoder"]
        timings = predictor.timings
        seconds = dict(prepared.seconds)
        seconds.update({step: timings[step] for step in _STEPS if step in timings})
        seconds["decoder"] = decoder
        return Inferred(prepared, low_res, scores, predictor.branch, seconds)

    def finish(self, inferred: Inferred, check: Callable[[], None]) -> ImageResult:
        """Write the files.

        Args:
            inferred: the result of `infer`.
            check: called before each mask; it may raise to stop the work.

        Returns:
            The image's entry in `--json`.

        Raises:
            InputError: a file cannot be written.
        """
        start = time.perf_counter()
        files, geometry = inferred.prepared.files, inferred.prepared.encoded.geometry
        height, width = geometry.original
        canvas = Image.fromarray(inferred.prepared.image) if self.write else None
        found: list[Mask] = []
        with ExitStack() as staged:  # all files are complete before the first gets its name
            for mask, binary, shown in self._masks(inferred):
                check()
                found.append(mask)
                if canvas is None:
                    continue
                if len(found) == 1:
                    files.stem.parent.mkdir(parents=True, exist_ok=True)
                save_mask(binary, staged.enter_context(staged_file(str(mask.file))))
                if shown:
                    draw_mask(canvas, binary, colour_of(int(mask.prompt or 0)))
            if canvas is not None:
                for prompt, request in enumerate(self.requests):
                    draw_prompt(canvas, request, colour_of(prompt))
                save_overlay(canvas, staged.enter_context(staged_file(files.overlay_path)))
        seconds = {**inferred.seconds, "masks_and_files": time.perf_counter() - start}
        return ImageResult(
            image=str(files.image),
            width=width,
            height=height,
            note=inferred.prepared.note or UNSET,
            enhanced=inferred.branch.enhanced,
            estimate=estimate_field(inferred.branch.estimate),
            masks=tuple(found),
            overlay=str(files.overlay_path) if self.write else UNSET,
            seconds={step: round(value, 6) for step, value in seconds.items()},
        )

    def _masks(self, inferred: Inferred) -> Iterator[tuple[Mask, NDArray[np.bool_], bool]]:
        """Yield each mask's record, the mask [H, W], and whether the overlay shows it.

        They are made one at a time, because all masks of a huge image do not fit in memory.
        """
        geometry, rules = inferred.prepared.encoded.geometry, self.manifest.postprocessing
        paths = self._mask_paths(inferred.prepared.files)
        for prompt, (logits, scores) in enumerate(
            zip(inferred.low_res, inferred.scores, strict=True)
        ):
            best = int(np.argmax(scores))
            for index in range(self._per_prompt):
                made = masks.binarize(logits[index], geometry, rules)
                number = prompt * self._per_prompt + index
                left, top, width, height = masks.mask_to_xywh(made.masks)
                mask = Mask(
                    id=number + 1,
                    prompt=prompt,
                    box=(left, top, left + width, top + height),
                    predicted_iou=round(float(scores[index]), 6),
                    stability_score=round(float(made.stability), 6),
                    area=int(np.count_nonzero(made.masks)),
                    rle=convert(encode_rle(made.masks), Rle),
                    file=str(paths[number]) if self.write else UNSET,
                )
                yield mask, made.masks, index == best

    @property
    def _per_prompt(self) -> int:
        """Return C, the number of masks per prompt."""
        return 3 if self.multimask else 1

    def _mask_paths(self, files: OutputFiles) -> list[Path]:
        count = len(self.requests) * self._per_prompt
        return [files.mask_path(index, count) for index in range(count)]
