"""Segment one large image file tile by tile: write masks, an instance map and a small overlay."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET, convert
from PIL import Image

from glesam_runtime.draw import colour_of, draw_mask, draw_prompt
from glesam_runtime.errors import InputError
from glesam_runtime.everything.instance_map import PALETTE_OBJECTS, draw_everything
from glesam_runtime.everything.search import Found
from glesam_runtime.output_files import refuse_inputs, save_overlay
from glesam_runtime.prompt_requests import check_request
from glesam_runtime.results import ImageResult, Mask, Rle
from glesam_runtime.rle import count_runs, encode_runs, run_area, run_box, runs_in_window
from glesam_runtime.staging import staged_file
from glesam_runtime.tiling.png_rows import instance_bands, mask_bands, write_png
from glesam_runtime.tiling.predictor import TiledPredictor
from glesam_runtime.tiling.window_files import open_windows
from glesam_runtime.tiling.windows import frame_of, read_reduced

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.everything.parameters import Parameters
    from glesam_runtime.output_files import OutputFiles
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.prompt_requests import PromptRequest
    from glesam_runtime.prompts import PromptBatch
    from glesam_runtime.tiling.windows import Windows

OVERLAY_SIDE = 2048
"""The longest side of the overlay in pixels; the picture is reduced to it by a whole factor."""
_MAX_MASKS = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Prepared:
    """An opened picture and its prompts."""

    files: OutputFiles
    windows: Windows
    prompts: list[PromptBatch]
    """One prompt each; empty for everything-mode."""
    seconds: dict[str, float]


@dataclass(frozen=True)
class Inferred:
    """The masks that were found."""

    prepared: Prepared
    found: list[tuple[int | None, Found, bool]]
    """For each mask the index of its prompt, the mask, and whether the overlay shows it."""
    seconds: dict[str, float]


@dataclass(frozen=True)
class TiledSegmentation:
    """The work of glesam-run --tile. For each picture it writes all outputs or none."""

    tile: int
    overlap: int
    requests: Sequence[PromptRequest]
    """One prompt for each object; none for everything-mode."""
    parameters: Parameters | None
    """How everything-mode searches; None with prompts."""
    multimask: bool
    mask_files: bool
    """Whether everything-mode writes a file for each mask. With prompts they are always written."""
    inputs: frozenset[Path]
    """Resolved paths of all input images, which no output may overwrite."""
    depth: int | str = "auto"
    write: bool = True
    progress: Callable[[str, int, int], None] | None = None
    """Called with the image, and how many points of the grids are done of how many."""

    def pixels(self, _: OutputFiles) -> int:
        """Return the number of pixels of a tile; the picture itself is not in memory."""
        return self.tile * self.tile

    def prepare(self, files: OutputFiles) -> Prepared:
        """Open the picture and check the prompts against it.

        Raises:
            InputError: the picture, a prompt or the output folder cannot be used.
        """
        start = time.perf_counter()
        source = files.source
        if source.problem:
            raise InputError(source.problem)
        windows = open_windows(source.path, self.depth, source.content)
        seconds = {"read": time.perf_counter() - start}
        try:
            frame = frame_of(windows)
            prompts = [check_request(each, frame) for each in self.requests]
        except InputError as error:
            windows.close()
            raise InputError(f"{files.image}: {error}") from error
        if self.write:
            count = len(self.requests) * self._per_prompt
            paths = [files.mask_path(index, count) for index in range(count)]
            if self.parameters:
                paths += [files.instances_path, files.colours_path]
            refuse_inputs(files, [*paths, files.overlay_path], self.inputs)
        return Prepared(files, windows, prompts, seconds)

    def infer(self, predictor: GleSamPredictor, prepared: Prepared) -> Inferred:
        """Find the masks.

        Raises:
            InputError: a part of the picture cannot be read, or an instance map cannot hold the
                masks.
        """
        image, start = prepared.files.image, time.perf_counter()
        tiled = TiledPredictor(predictor, self.tile, self.overlap)
        found: list[tuple[int | None, Found, bool]] = []
        try:
            tiled.set_windows(prepared.windows)
            if self.parameters:
                told = self.progress
                progress = None if told is None else lambda *counts: told(str(image), *counts)
                every = tiled.find_everything(self.parameters, progress)
                found += [(None, one, True) for one in every]
            for index, masks in enumerate(tiled.find(prepared.prompts, self.multimask)):
                found += [(index, one, rank == 0) for rank, one in enumerate(masks)]
        except InputError as error:
            prepared.windows.close()
            text = str(error)
            raise InputError(text if text.startswith(str(image)) else f"{image}: {text}") from error
        if self.parameters and len(found) > _MAX_MASKS:
            raise InputError(f"{image}: {len(found)} masks, but an instance map holds {_MAX_MASKS}")
        seconds = {**prepared.seconds, "search": time.perf_counter() - start}
        return Inferred(prepared, found, seconds)

    def finish(self, inferred: Inferred, check: Callable[[], None]) -> ImageResult:
        """Write the files.

        Args:
            inferred: the result of `infer`.
            check: called before each mask is written; it may raise to stop the work.

        Returns:
            The image's entry in `--json`.

        Raises:
            InputError: a file cannot be written, or would overwrite an input image.
        """
        start = time.perf_counter()
        files, windows = inferred.prepared.files, inferred.prepared.windows
        size = windows.height, windows.width
        single = self.write and (self.mask_files or not self.parameters)
        count = len(inferred.found) if single else 0
        paths = [files.mask_path(index, count) for index in range(count)]
        refuse_inputs(files, paths, self.inputs)
        colours = False
        if self.write:
            files.stem.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as staged:  # all files are complete before the first gets its name

                def place_for(path: Path) -> Path:
                    return staged.enter_context(staged_file(path))

                for (_, one, _), path in zip(inferred.found, paths, strict=False):
                    check()
                    write_png(place_for(path), size, mask_bands(one.runs, size))
                if self.parameters:
                    every = [one for _, one, _ in inferred.found]
                    colours = self._write_instances(every, size, files, place_for)
                overlay = self._overlay(inferred, windows, check)
                save_overlay(overlay, place_for(files.overlay_path))
        windows.close()
        seconds = {**inferred.seconds, "masks_and_files": time.perf_counter() - start}
        return ImageResult(
            image=str(files.image),
            width=size[1],
            height=size[0],
            note=windows.note or UNSET,
            masks=tuple(
                _record(index, prompt, one, size, paths)
                for index, (prompt, one, _) in enumerate(inferred.found)
            ),
            instances=str(files.instances_path) if self.write and self.parameters else UNSET,
            colours=str(files.colours_path) if colours else UNSET,
            overlay=str(files.overlay_path) if self.write else UNSET,
            seconds={step: round(value, 6) for step, value in seconds.items()},
        )

    @property
    def _per_prompt(self) -> int:
        return 3 if self.multimask else 1

    def _write_instances(
        self,
        found: Sequence[Found],
        size: tuple[int, int],
        files: OutputFiles,
        place_for: Callable[[Path], Path],
    ) -> bool:
        """Write the instance map, smaller masks on top; return whether it needs 16 bits.

        The picture in colours that goes with a map of 16 bits is the overlay's size.
        """
        order = sorted(range(len(found)), key=lambda index: -run_area(found[index].runs))
        painted = [(index + 1, found[index].runs, found[index].box) for index in order]
        palette = np.asarray([(0, 0, 0), *(colour_of(index) for index in range(len(found)))])
        place = place_for(files.instances_path)
        if len(found) <= PALETTE_OBJECTS:
            bands = instance_bands(painted, size, np.uint8)
            write_png(place, size, bands, palette.astype(np.uint8))
            return False
        write_png(place, size, instance_bands(painted, size, np.uint16))
        factor = _overlay_factor(size)
        small = np.zeros((size[0] // factor, size[1] // factor), np.uint16)
        for index in order:
            small[_reduced(found[index], size, factor)] = index + 1
        picture = Image.fromarray(palette.astype(np.uint8)[small])
        save_overlay(picture, place_for(files.colours_path))
        return True

    def _overlay(
        self, inferred: Inferred, windows: Windows, check: Callable[[], None]
    ) -> Image.Image:
        """Draw the masks over the picture, reduced to at most `OVERLAY_SIDE` pixels a side."""
        size = windows.height, windows.width
        factor = _overlay_factor(size)
        height, width = size[0] // factor, size[1] // factor
        small = read_reduced(windows, (0, 0, size[1], size[0]), factor)[:height, :width]
        if self.parameters:
            every = []
            for _, one, _ in inferred.found:
                check()
                runs = count_runs(_reduced(one, size, factor))
                every.append(replace(one, runs=runs, box=run_box(runs, height)))
            return draw_everything(np.ascontiguousarray(small), every, check)[1]
        canvas = Image.fromarray(np.ascontiguousarray(small))
        for prompt, one, shown in inferred.found:
            check()
            if shown:
                draw_mask(canvas, _reduced(one, size, factor), colour_of(int(prompt or 0)))
        for prompt, request in enumerate(self.requests):
            draw_prompt(canvas, _scaled(request, factor), colour_of(prompt))
        return canvas


def _overlay_factor(size: tuple[int, int]) -> int:
    return -(-max(size) // OVERLAY_SIDE)


def _reduced(found: Found, size: tuple[int, int], factor: int) -> NDArray[np.bool_]:
    """Return a mask at the size of the overlay, bool."""
    box = 0, 0, size[1] // factor * factor, size[0] // factor * factor
    return runs_in_window(found.runs, size[0], box, factor)


def _scaled(request: PromptRequest, factor: int) -> PromptRequest:
    """Return a prompt in pixels of the overlay."""
    box = request.box
    return replace(
        request,
        points=tuple((x / factor, y / factor) for x, y in request.points),
        box=None
        if box is None
        else (box[0] / factor, box[1] / factor, box[2] / factor, box[3] / factor),
    )


def _record(
    index: int, prompt: int | None, found: Found, size: tuple[int, int], paths: list[Path]
) -> Mask:
    x0, y0, x1, y1 = found.box
    area = run_area(found.runs)
    return Mask(
        id=index + 1,
        prompt=UNSET if prompt is None else prompt,
        points=(found.point,) if prompt is None else UNSET,
        box=(x0, y0, x1 + 1, y1 + 1) if area else (0, 0, 0, 0),
        predicted_iou=round(found.predicted_iou, 6),
        stability_score=round(found.stability, 6),
        area=area,
        crop=found.crop.box,
        rle=convert(encode_runs(found.runs, *size), Rle),
        file=str(paths[index]) if paths else UNSET,
    )
