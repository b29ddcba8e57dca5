"""Follow objects through a video: the last mask of each object prompts the next frame.

Its box is the prompt, and its logits too if the model was trained with mask prompts.
runtime/cpp/src/follow.cpp does the same, with the same masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime import masks
from glesam_runtime.compare import mask_iou
from glesam_runtime.errors import InputError
from glesam_runtime.image import check_image, geometry_of
from glesam_runtime.one_thread import OneThread, one_thread_at_a_time
from glesam_runtime.prompts import PromptBatch, as_batch, group_alike

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.chain import Features
    from glesam_runtime.image import Geometry
    from glesam_runtime.predictor import GleSamPredictor

MIN_SCORE, MIN_STABILITY = 0.6, 0.7
"""An object with less of one of them is lost. docs/video.md says how they were chosen."""
_REGAIN = 0.1
"""A lost object is found again with at least this much more of each, so that an object beside it is
not taken for it."""
_WIDER = 0.5
"""The box that looks for a lost object exceeds its last box by this share of the width and height
on each side."""
_SAME_MASK = 0.7
"""An object's own mask as a prompt must give a mask of at least this IoU, or the model was not
trained with such prompts."""


@dataclass(frozen=True, eq=False)
class Followed:
    """An object in one frame."""

    lost: bool
    """Whether the object was not found. Mask, box and area are then empty."""
    mask: NDArray[np.bool_]
    """bool [H, W]."""
    score: float
    """The IoU that the model predicts for the mask; of a lost object, for the refused one."""
    stability: float
    """The mask's area at a raised threshold divided by its area at a lowered one."""
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1; x1 and y1 are the first column and row behind the mask. Zeros if it is
    empty."""
    area: int
    """Number of pixels."""


@dataclass(frozen=True, eq=False)
class _Memory:
    """What is known about an object from the last frame in which it was found."""

    box: tuple[int, int, int, int]
    low_res: NDArray[np.float32]
    """[1, S/4, S/4], logits for the mask prompt."""
    lost: bool = False
    """Whether the object was lost in the last frame."""

    @property
    def prompt_box(self) -> tuple[float, float, float, float]:
        """Return x0, y0, x1, y1 of the box for the next frame."""
        x0, y0, x1, y1 = self.box
        share = _WIDER if self.lost else 0.0
        across, down = share * (x1 - x0), share * (y1 - y0)
        return x0 - across, y0 - down, x1 + across, y1 + down


@dataclass(frozen=True, eq=False)
class _Found:
    followed: Followed
    low_res: NDArray[np.float32]
    """[1, S/4, S/4]."""


class Follower(OneThread):
    """Follows one object or several through the frames of a video.

    `start` finds the objects in a frame by prompts. `next` finds them in each further frame. An
    object that the model no longer finds with enough certainty is lost: the follower says so, and
    looks for it in the following frames where it was last. `prompt` says where it is now.

    A frame with the same bytes as the one before is not encoded again, which changes no result.

    The follower uses the predictor and the image that is set in it. The enhancer runs if the
    predictor was created with `enhance`.
    """

    def __init__(
        self,
        predictor: GleSamPredictor,
        *,
        min_score: float = MIN_SCORE,
        min_stability: float = MIN_STABILITY,
        mask_prompt: bool | None = None,
    ) -> None:
        """Follow nothing yet.

        Args:
            predictor: a predictor that nothing else uses meanwhile.
            min_score: an object with a lower predicted IoU is lost; 0 to 1. It is found again with
                0.1 more.
            min_stability: the same for the stability.
            mask_prompt: whether the logits of the last mask are part of the next prompt. None
                decides in `start`: they are if the masks of the first frame, as prompts for that
                frame, stay the same.

        Raises:
            InputError: a minimum is not from 0 to 1.
        """
        super().__init__()
        for name, value in (("min_score", min_score), ("min_stability", min_stability)):
            if not 0 <= value <= 1:
                raise InputError(f"{name} {value}: must be from 0 to 1")
        self._predictor = predictor
        self._min_score, self._min_stability = min_score, min_stability
        self._mask_prompt = mask_prompt
        self._with_mask = False
        self._frame: NDArray[np.uint8] | None = None
        self._features: Features | None = None
        """The features of `_frame`. Another object in the predictor says that somebody else set an
        image."""
        self._objects: list[_Memory | None] = []
        """None for an object that was never found."""

    @property
    def count(self) -> int:
        """Return the number of objects."""
        return len(self._objects)

    @one_thread_at_a_time
    def start(
        self,
        image: NDArray[np.uint8],
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
    ) -> list[Followed]:
        """Find the objects of B prompts in a frame, and forget those that were followed before.

        Args:
            image: uint8 [H, W, 3], RGB.
            point_coords: [N, 2] or [B, N, 2], (x, y) in pixels of the frame.
            point_labels: [N] or [B, N], 1 for the object, 0 for the background.
            box: [4] or [B, 4], x0, y0, x1, y1 in pixels of the frame.

        Returns:
            One element for each object. It is lost if its mask is empty.

        Raises:
            InputError: the image or a prompt cannot be used; the objects stay the same.
        """
        image = check_image(image)
        return self.start_with(image, [self._prompts(image, point_coords, point_labels, box)])

    @one_thread_at_a_time
    def start_with(
        self, image: NDArray[np.uint8], prompts: Sequence[PromptBatch]
    ) -> list[Followed]:
        """Do what `start` does with checked prompts, which may be of different kinds.

        Raises:
            InputError: the image cannot be used, or there is no prompt.
        """
        image = check_image(image)
        single = [_one(batch, index) for batch in prompts for index in range(batch.size)]
        if not single:
            raise InputError("no prompt: give points or a box for each object")
        self._set(image)
        found: dict[int, _Found] = {}
        for members, batch in group_alike(single):
            found.update(zip(members, self._decode(batch), strict=True))
        before, self._objects = self._objects, [None] * len(single)
        try:
            results = [self._accept(number, found[number]) for number in range(len(single))]
            self._with_mask = self._takes_masks(results)
        except BaseException:
            self._objects = before  # a call that fails changes no objects
            raise
        return results

    @one_thread_at_a_time
    def next(self, image: NDArray[np.uint8]) -> list[Followed]:
        """Find the objects in the next frame.

        Args:
            image: uint8 [H, W, 3], RGB, of the same size as the frames before.

        Returns:
            One element for each object, in the order of `start`.

        Raises:
            InputError: nothing was started, or the image cannot be used.
        """
        image = check_image(image)
        if self._frame is None or not self._objects:
            raise InputError("nothing is followed; call start first")
        if image.shape != self._frame.shape:
            (height, width), (was_high, was_wide) = image.shape[:2], self._frame.shape[:2]
            raise InputError(
                f"image: {width} x {height} pixels, but the frames before have {was_wide} x "
                f"{was_high}; call start"
            )
        self._set(image)
        results = [_lost(image.shape[:2], 0.0, 0.0)] * self.count
        known = {number: each for number, each in enumerate(self._objects) if each is not None}
        if known:
            found = self._decode(_prompts_of(list(known.values()), self._with_mask))
            for number, each in zip(known, found, strict=True):
                results[number] = self._judge(number, each)
        return results

    @one_thread_at_a_time
    def prompt(
        self,
        number: int,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
    ) -> Followed:
        """Find an object in the last frame by a new prompt, for example because it is lost.

        Args:
            number: the object, counted from 0 in the order of `start`.
            point_coords: [N, 2], (x, y) in pixels of the frame.
            point_labels: [N], 1 for the object, 0 for the background.
            box: [4], x0, y0, x1, y1 in pixels of the frame.

        Raises:
            InputError: there is no such object, or the prompt cannot be used.
        """
        if self._frame is None or not 0 <= number < self.count:
            raise InputError(f"object {number}: there are {self.count}, counted from 0")
        prompts = self._prompts(self._frame, point_coords, point_labels, box)
        if prompts.size != 1:
            raise InputError(f"{prompts.size} prompts for one object; give one")
        self._set(self._frame)
        return self._accept(number, self._decode(prompts)[0])

    def _prompts(
        self,
        image: NDArray[np.uint8],
        point_coords: ArrayLike | None,
        point_labels: ArrayLike | None,
        box: ArrayLike | None,
    ) -> PromptBatch:
        """Check prompts before the encoder runs."""
        _, prompts = as_batch(self._geometry_of(image), point_coords, point_labels, box)
        return prompts

    def _geometry_of(self, image: NDArray[np.uint8]) -> Geometry:
        rules = self._predictor.bundle.manifest.preprocessing
        return geometry_of(image.shape[0], image.shape[1], rules.image_size, rules.resize)

    def _set(self, image: NDArray[np.uint8]) -> None:
        """Encode a frame, unless it has the bytes of the one whose features the predictor has."""
        mine = self._features is not None and self._predictor._features is self._features
        if mine and self._frame is not None and np.array_equal(image, self._frame):
            return
        self._predictor.set_image(image)
        self._features = self._predictor._features
        self._frame = image.copy()  # the caller may reuse the array

    def _decode(self, prompts: PromptBatch) -> list[_Found]:
        """Return the mask of each prompt."""
        low_res, scores = self._predictor.decode(prompts, multimask_output=False)
        made = self._predictor.binarize(low_res)
        rules = self._predictor.bundle.manifest.postprocessing
        logits = masks.for_mask_input(low_res, rules)
        found = []
        for index, mask in enumerate(made.masks[:, 0]):
            left, top, width, height = masks.mask_to_xywh(mask)
            followed = Followed(
                lost=False,
                mask=mask,
                score=float(scores[index, 0]),
                stability=float(made.stability[index, 0]),
                box=(left, top, left + width, top + height),
                area=int(np.count_nonzero(mask)),
            )
            found.append(_Found(followed, logits[index]))
        return found

    def _judge(self, number: int, found: _Found) -> Followed:
        """Accept what was found if it is certain enough."""
        followed, memory = found.followed, self._objects[number]
        more = _REGAIN if memory is not None and memory.lost else 0.0
        certain = (
            followed.score >= self._min_score + more
            and followed.stability >= self._min_stability + more
        )
        if certain:
            return self._accept(number, found)
        self._lose(number)
        return _lost(followed.mask.shape, followed.score, followed.stability)

    def _lose(self, number: int) -> None:
        memory = self._objects[number]
        self._objects[number] = None if memory is None else replace(memory, lost=True)

    def _accept(self, number: int, found: _Found) -> Followed:
        """Remember what was found for the next frame."""
        followed = found.followed
        if followed.area == 0:
            self._lose(number)
            return replace(followed, lost=True)
        self._objects[number] = _Memory(followed.box, found.low_res)
        return followed

    def _takes_masks(self, first: Sequence[Followed]) -> bool:
        """Return whether masks of the first frame stay the same as prompts for that frame.

        A model that was not trained with mask prompts, such as nano, gives quite different masks.
        """
        if self._mask_prompt is not None:
            return self._mask_prompt
        known = {number: each for number, each in enumerate(self._objects) if each is not None}
        if not known:
            return False
        again = self._decode(_prompts_of(list(known.values()), True))
        return all(
            mask_iou(each.followed.mask, first[number].mask) >= _SAME_MASK
            for number, each in zip(known, again, strict=True)
        )


def _one(batch: PromptBatch, index: int) -> PromptBatch:
    """Return one prompt of a batch."""
    part = slice(index, index + 1)
    return PromptBatch(
        batch.points[part],
        batch.labels[part],
        None if batch.boxes is None else batch.boxes[part],
        None if batch.masks is None else batch.masks[part],
    )


def _prompts_of(memories: Sequence[_Memory], with_mask: bool) -> PromptBatch:
    """Return the prompts for the next frame."""
    return PromptBatch(
        np.zeros((len(memories), 0, 2)),
        np.zeros((len(memories), 0), np.float32),
        np.asarray([memory.prompt_box for memory in memories], np.float64),
        np.stack([memory.low_res for memory in memories]) if with_mask else None,
    )


def _lost(shape: tuple[int, ...], score: float, stability: float) -> Followed:
    """Return an object that is lost in a frame [H, W]."""
    return Followed(True, np.zeros(shape, np.bool_), score, stability, (0, 0, 0, 0), 0)
