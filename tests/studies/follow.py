"""Measure `Follower` on procedural videos, beside prompting each frame anew.

Usage: python -m tests.studies.follow [SEED ...]

Each video has 300 frames of 640 x 480 pixels with three objects, of which the truth is known. The
frames are encoded once, and all variants of the follower use the same features. "Anew" prompts each
frame with the point that lies farthest inside the true mask, which no follower knows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glesam_evaluation.moving_scenes import MovingScene, innermost, make_moving_scene
from glesam_runtime import Followed, Follower, GleSamPredictor, ImageEmbedding, follow
from glesam_runtime.compare import mask_iou
from glesam_runtime.machine import cpu_name
from glesam_runtime.prompts import PromptBatch

SEEDS = (0, 1, 2, 3)
SEEN = 200
"""Smallest visible part of an object, in pixels, for which an IoU counts."""

Prompts = Callable[[Sequence[follow._Memory], bool], PromptBatch]
OWN: Prompts = follow._prompts_of


@dataclass(frozen=True)
class Variant:
    name: str
    prompts: Prompts = OWN
    mask_prompt: bool | None = False
    minima: tuple[float, float] = (follow.MIN_SCORE, follow.MIN_STABILITY)
    wider: float = follow._WIDER
    regain: float = follow._REGAIN


POINTS: dict[tuple[int, int, int, int], tuple[float, float] | None] = {}
"""The point farthest inside the mask with a box."""


def with_point(memories: Sequence[follow._Memory], with_mask: bool) -> PromptBatch:
    points = np.array([[POINTS[memory.box]] for memory in memories], np.float64)
    labels = np.ones((len(memories), 1), np.float32)
    return replace(OWN(memories, with_mask), points=points, labels=labels)


def point_only(memories: Sequence[follow._Memory], with_mask: bool) -> PromptBatch:
    return replace(with_point(memories, with_mask), boxes=None)


VARIANTS = (
    Variant("box (the default)"),
    Variant("box and point", with_point),
    Variant("point", point_only),
    Variant("box and mask", mask_prompt=True),
    Variant("box, never lost", minima=(0, 0), wider=0, regain=0),
    Variant("box, found again as easily as lost", wider=0, regain=0),
    Variant("box, minima 0.5 and 0.6", minima=(0.5, 0.6)),
    Variant("box, minima 0.7 and 0.8", minima=(0.7, 0.8)),
)


class OnFeatures(Follower):
    """A follower whose frames are encoded already: each image holds the index of its embedding."""

    def __init__(self, predictor: GleSamPredictor, variant: Variant, video: Video) -> None:
        super().__init__(
            predictor,
            min_score=variant.minima[0],
            min_stability=variant.minima[1],
            mask_prompt=variant.mask_prompt,
        )
        self._video = video

    def _set(self, image: np.ndarray) -> None:
        index = int(image[0, 0, 0]) * 256 + int(image[0, 0, 1])
        self._predictor.set_embedding(self._video.embeddings[index])
        self._frame = image

    def _accept(self, number: int, found: follow._Found) -> Followed:
        followed = super()._accept(number, found)
        if not followed.lost:
            POINTS[followed.box] = innermost(followed.mask.astype(np.uint8))
        return followed


@dataclass(frozen=True)
class Video:
    scene: MovingScene
    embeddings: list[ImageEmbedding]
    instances: list[np.ndarray]

    @property
    def followed(self) -> list[int]:
        """Return the objects that are visible in the first frame."""
        numbers = range(1, self.scene.objects + 1)
        return [n for n in numbers if np.count_nonzero(self.instances[0] == n) >= SEEN]

    def image(self, index: int) -> np.ndarray:
        """Return an image that only says its index."""
        image = np.zeros((self.scene.height, self.scene.width, 3), np.uint8)
        image[0, 0, :2] = divmod(index, 256)
        return image

    def truth(self, index: int, number: int) -> np.ndarray:
        return self.instances[index] == number


def encode(seed: int, predictor: GleSamPredictor) -> Video:
    scene = make_moving_scene(seed)
    embeddings, instances = [], []
    for index in range(scene.frames):
        drawn = scene.frame(index)
        predictor.set_image(drawn.image)
        embeddings.append(predictor.get_embedding())
        instances.append(drawn.instances.astype(np.uint8))
    return Video(scene, embeddings, instances)


@dataclass
class Figures:
    """What is summed over all videos, objects and frames after the first."""

    iou: list[float]
    """Of frames in which the object is seen; 0 where it is lost."""
    before: list[float]
    """Those of the first third, in which nothing hides the objects."""
    certain: list[float]
    """Those of frames in which the object is not lost."""
    hidden: list[bool]
    """Whether it is said to be lost, in frames that show nothing of it."""

    @staticmethod
    def none() -> Figures:
        return Figures([], [], [], [])

    def row(self) -> str:
        wrong = np.mean([each < 0.3 for each in self.certain])
        share = len(self.certain) / len(self.iou)
        return (
            f"{np.mean(self.iou):.3f} | {np.mean(self.before):.3f} | {share:.0%} | "
            f"{np.mean(self.certain):.3f} | {wrong:.1%} | {np.mean(self.hidden):.0%}"
        )


def add(figures: Figures, video: Video, index: int, number: int, found: Followed) -> None:
    truth = video.truth(index, number)
    if not truth.any():
        figures.hidden.append(found.lost)
    if np.count_nonzero(truth) < SEEN:
        return
    iou = mask_iou(found.mask, truth)
    figures.iou.append(iou)
    if index < video.scene.frames // 3:
        figures.before.append(iou)
    if not found.lost:
        figures.certain.append(iou)


def measure(variant: Variant, videos: Sequence[Video], predictor: GleSamPredictor) -> Figures:
    figures = Figures.none()
    own = follow._prompts_of, follow._WIDER, follow._REGAIN
    follow._prompts_of, follow._WIDER, follow._REGAIN = (
        variant.prompts,
        variant.wider,
        variant.regain,
    )
    try:
        for video in videos:
            follower = OnFeatures(predictor, variant, video)
            points = [[innermost(video.truth(0, n).astype(np.uint8))] for n in video.followed]
            follower.start(video.image(0), points, np.ones((len(points), 1)))
            for index in range(1, video.scene.frames):
                for number, found in zip(
                    video.followed, follower.next(video.image(index)), strict=True
                ):
                    add(figures, video, index, number, found)
    finally:
        follow._prompts_of, follow._WIDER, follow._REGAIN = own
    return figures


def anew(videos: Sequence[Video], predictor: GleSamPredictor) -> Figures:
    figures = Figures.none()
    for video in videos:
        for index in range(1, video.scene.frames):
            predictor.set_embedding(video.embeddings[index])
            for number in video.followed:
                truth = video.truth(index, number)
                if np.count_nonzero(truth) < SEEN:
                    continue
                point = innermost(truth.astype(np.uint8))
                masks, _, _ = predictor.predict([point], [1], multimask_output=False)
                found = Followed(False, masks[0], 0, 0, (0, 0, 0, 0), 1)
                add(figures, video, index, number, found)
    return figures


def speed(predictor: GleSamPredictor, video: Video) -> tuple[float, float, float]:
    """Return the frames a second of a follower, of prompting each frame, and of a still picture."""
    frames = [video.scene.frame(index).image for index in range(40)]
    points = [[innermost(video.truth(0, n).astype(np.uint8))] for n in video.followed]
    labels = np.ones((len(points), 1))
    follower = Follower(predictor)
    follower.start(frames[0], points, labels)
    ways: tuple[Callable[[np.ndarray], object], ...] = (
        follower.next,
        lambda frame: (
            predictor.set_image(frame),
            predictor.predict(points, labels, multimask_output=False),
        ),
        lambda _: follower.next(frames[0]),
    )
    taken = []
    for way in ways:
        for frame in frames[:5]:
            way(frame)
        start = time.perf_counter()
        for frame in frames:
            way(frame)
        taken.append(len(frames) / (time.perf_counter() - start))
    return taken[0], taken[1], taken[2]


def main(seeds: Sequence[int]) -> None:
    predictor = GleSamPredictor(backend="openvino")
    videos = [encode(seed, predictor) for seed in seeds]
    print(f"{cpu_name()}; frames a second of {len(videos[0].followed)} objects:")
    fast = speed(predictor, videos[0])
    print(
        "followed {:.1f}, each frame prompted {:.1f}, a still picture followed {:.1f}".format(*fast)
    )
    print(f"seeds {', '.join(map(str, seeds))}")
    print(
        "| prompt of the next frame | IoU | before the board | not lost | IoU then | wrong then "
        "| hidden and lost |\n|---|---|---|---|---|---|---|"
    )
    known = anew(videos, predictor)
    ious = f"{np.mean(known.iou):.3f} | {np.mean(known.before):.3f}"
    print(f"| each frame anew, the true inner point | {ious} | | | | |", flush=True)
    for variant in VARIANTS:
        print(f"| {variant.name} | {measure(variant, videos, predictor).row()} |", flush=True)


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]] or SEEDS)
