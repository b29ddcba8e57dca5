"""Keep encoded images in memory, bounded by bytes; the least recently used are dropped first."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from glesam_serving.problems import ProblemError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from glesam_runtime.chain import Features
    from glesam_runtime.enhancing import Branch, Mode
    from glesam_runtime.image import Geometry

_ANSWERS = 64
"""Number of masks of each image that can be refined later; the latest stay."""
_MODES: dict[Mode, int] = {False: 0, True: 1, "auto": 2}
_OVERHEAD = 4096
"""Bytes that count for the objects of an image."""


def image_id(
    content_hash: bytes, bundle_sha256: str, mode: Mode, timestep: int | None = None
) -> str:
    """Return the id of an image: a hash of all that its embedding depends on.

    Args:
        content_hash: SHA-256 of the file's bytes.
        bundle_sha256: the hash of the bundle.
        mode: which images are enhanced. An image that the mode "auto" enhances has another id than
            one that is always enhanced: the gate's answer is not known yet.
        timestep: the timestep that the enhancer runs, for a bundle with several.
    """
    parts = content_hash + bytes.fromhex(bundle_sha256) + bytes([_MODES[mode]])
    parts += b"" if timestep is None else str(timestep).encode()
    return hashlib.sha256(parts).hexdigest()[:32]


@dataclass(eq=False, repr=False)
class EncodedImage:
    """An image that can be prompted."""

    id: str
    content: bytes
    """The file, for everything-mode and degradation."""
    features: Features
    """The embedding, on the device that computed it."""
    feature_bytes: int
    geometry: Geometry
    stored: tuple[int, int]
    """(height, width) in pixels before the EXIF orientation is applied."""
    mode: Mode
    """Which images were to be enhanced."""
    branch: Branch
    """Whether this one was."""
    note: str | None
    seconds: dict[str, float]
    answers: OrderedDict[str, NDArray[np.float32]] = field(default_factory=OrderedDict)
    """Logits [S/4, S/4] of the latest masks, by their ids."""
    _serial: Iterator[int] = field(default_factory=count)
    timestep: int | None = None
    """The timestep that the enhancer ran, for a bundle with several."""

    @property
    def bytes(self) -> int:
        """Return the memory that the image takes."""
        logits = sum(each.nbytes for each in self.answers.values())
        return len(self.content) + self.feature_bytes + logits + _OVERHEAD

    def keep(self, low_res: NDArray[np.float32]) -> str:
        """Keep a mask's logits [S/4, S/4] for refinement, and return the mask's id."""
        name = f"{self.id[:8]}-{next(self._serial)}"
        self.answers[name] = low_res.copy()  # a view would keep the whole batch alive
        if len(self.answers) > _ANSWERS:
            self.answers.popitem(last=False)
        return name

    def logits_of(self, name: str, where: str) -> NDArray[np.float32]:
        """Return the logits [S/4, S/4] of an earlier mask.

        Raises:
            ProblemError: the mask is not kept.
        """
        found = self.answers.get(name)
        if found is None:
            raise ProblemError(
                404,
                f"{where}: mask {name[:64]!r} is not kept for this image, which keeps its latest "
                f"{_ANSWERS} masks; prompt without mask_from first",
            )
        self.answers.move_to_end(name)
        return found


class ImageCache:
    """The encoded images. Only the thread of the event loop uses it."""

    def __init__(self, limit: int) -> None:
        """Create an empty cache of at most `limit` bytes. The latest image stays in any case."""
        self.limit = limit
        self.evicted = 0
        self._images: OrderedDict[str, EncodedImage] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def get(self, name: str) -> EncodedImage | None:
        """Return an image and mark it as used, or None if it is not here."""
        image = self._images.get(name)
        if image is not None:
            self._images.move_to_end(name)
        return image

    def put(self, image: EncodedImage) -> None:
        """Add an image or update its size, and drop others until the limit is kept."""
        self._forget_size(image.id)
        self._images[image.id] = image
        self._images.move_to_end(image.id)
        self._sizes[image.id] = image.bytes
        self.bytes += self._sizes[image.id]
        while self.bytes > self.limit and len(self._images) > 1:
            oldest, _ = self._images.popitem(last=False)
            self._forget_size(oldest)
            self.evicted += 1

    def grown(self, image: EncodedImage) -> None:
        """Count what an image now takes, if it is still here."""
        if self._images.get(image.id) is image:
            self.put(image)

    def remove(self, name: str) -> bool:
        """Remove an image; return whether it was here."""
        self._forget_size(name)
        return self._images.pop(name, None) is not None

    def _forget_size(self, name: str) -> None:
        self.bytes -= self._sizes.pop(name, 0)
