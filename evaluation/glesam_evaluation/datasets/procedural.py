"""Procedural scenes as a dataset: no file is read, a range of seeds is all of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glesam_evaluation.datasets.sample import Sample
from glesam_runtime.errors import InputError

SIDE = 256
MIN_AREA = 0.004
"""Smallest instance kept, as a share of the image: 16 x 16 pixels of 256 x 256."""


class SceneDataset:
    """Scenes of `SIDE` x `SIDE` pixels with consecutive seeds."""

    def __init__(self, count: int, first: int = 0) -> None:
        """Take the scenes of seeds `first` to `first + count - 1`.

        Raises:
            InputError: `count` below 1, `first` below 0, or OpenCV is not installed.
        """
        if count < 1 or first < 0:
            raise InputError(f"scenes:{count}@{first}: at least 1 scene, and seeds from 0 on")
        try:
            import glesam_evaluation.scenes  # noqa: F401 - told now, not at the first sample
        except ModuleNotFoundError as error:
            if error.name not in ("cv2", "scipy"):
                raise
            raise InputError(
                f"{error.name} is not installed: pip install 'glesam-deploy[calibration]'"
            ) from error
        self._seeds = range(first, first + count)

    @property
    def names(self) -> Sequence[str]:
        """`scene-<seed>`: a scene has its name in whichever range it is."""
        return [f"scene-{seed}" for seed in self._seeds]

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, index: int) -> Sample:
        """Make a scene; of its instances those of at least MIN_AREA, or else the largest."""
        from glesam_evaluation.scenes import make_scene

        seed = self._seeds[index]
        scene = make_scene(seed, SIDE, SIDE)
        masks = scene.masks
        areas = np.count_nonzero(masks, axis=(1, 2))
        kept = areas >= MIN_AREA * SIDE * SIDE
        if not kept.any():
            kept[areas.argmax()] = True
        return Sample(f"scene-{seed}", scene.image, masks[kept])
