"""Keep the embedding of an image: in memory, or in a file for another process or another day.

An embedding is what `set_image` computes, so a predictor that is given one can be prompted at once.
It belongs to one bundle, because another model's decoder would turn it into wrong masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from glesam_runtime.enhancing import Branch
from glesam_runtime.errors import InputError
from glesam_runtime.image import Geometry
from glesam_runtime.limits import EMBEDDING_BYTES, check_picture
from glesam_runtime.staging import staged_file

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from glesam_runtime.bundle import Bundle

_KEY = "glesam_embedding"
"""The entry of the safetensors header that describes the embedding, as JSON."""
_VERSION = 1


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """The features of one image, and what is needed to use them again.

    `GleSamPredictor.get_embedding` returns one and `GleSamPredictor.set_embedding` takes one.
    """

    features: Mapping[str, NDArray[np.float32]]
    """Arrays by the names of the encoder's outputs: `image_embeddings` [1, 256, S/16, S/16], and
    `high_res_feats_0` and `high_res_feats_1` with SAM 2."""
    geometry: Geometry
    """The size of the image before and after resizing."""
    bundle_sha256: str
    """The hash of the bundle that computed the features (`Bundle.sha256`)."""
    enhanced: bool
    """Whether the enhancer ran."""
    estimate: float | None = None
    """What the bundle's gate estimated; None if no gate was asked."""

    @property
    def branch(self) -> Branch:
        """Return what was decided for the image."""
        return Branch(self.enhanced, self.estimate)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the embedding to a safetensors file, which replaces an existing one atomically.

        Raises:
            InputError: the file cannot be written.
        """
        from safetensors.numpy import save

        header = _Header(
            version=_VERSION,
            bundle_sha256=self.bundle_sha256,
            enhanced=self.enhanced,
            estimate=self.estimate,
            image_size=self.geometry.image_size,
            resized=self.geometry.resized,
            original=self.geometry.original,
        )
        arrays = {name: np.ascontiguousarray(value) for name, value in self.features.items()}
        content = save(arrays, {_KEY: msgspec.json.encode(header).decode()})
        with staged_file(path) as partial:
            partial.write_bytes(content)

    def check(self, bundle: Bundle, enhanced: bool) -> None:
        """Refuse an embedding that a predictor of `bundle` cannot use.

        Args:
            bundle: the predictor's bundle.
            enhanced: whether the predictor runs the enhancer.

        Raises:
            InputError: another bundle computed the embedding, the enhancer ran for one of the two
                only, or an array does not have the contract's name, shape, dtype or finite values.
        """
        if self.bundle_sha256 != bundle.sha256:
            raise InputError(
                f"embedding: computed by the bundle {self.bundle_sha256[:12]}, but this predictor "
                f"runs {bundle.sha256[:12]}; set the image instead"
            )
        if self.enhanced != enhanced:
            raise InputError(
                f"embedding: computed with enhance={self.enhanced}, but this predictor has "
                f"enhance={enhanced}; use a predictor with enhance={self.enhanced}"
            )
        size = bundle.manifest.preprocessing.image_size
        if self.geometry.image_size != size:
            raise InputError(
                f"embedding: of an image of side {self.geometry.image_size}, but the bundle has "
                f"{size}; set the image instead"
            )
        outputs = bundle.manifest.stages["encoder"].outputs
        expected = {spec.name: (1, *spec.shape[1:]) for spec in outputs}
        if set(self.features) != set(expected):
            raise InputError(
                f"embedding: holds {', '.join(sorted(self.features)) or 'no arrays'}, but "
                f"{', '.join(sorted(expected))} are needed"
            )
        for name, array in self.features.items():
            if array.dtype != np.float32 or array.shape != expected[name]:
                raise InputError(
                    f"embedding: {name} is {array.dtype} {list(array.shape)}, but float32 "
                    f"{list(expected[name])} is needed"
                )
            if not np.isfinite(array).all():
                raise InputError(f"embedding: {name} holds NaN or infinity")


def load_embedding(path: str | os.PathLike[str]) -> ImageEmbedding:
    """Read an embedding that `ImageEmbedding.save` wrote.

    `GleSamPredictor.set_embedding` then checks that it belongs to the predictor's bundle.

    Raises:
        InputError: the file is missing, too large or no embedding, or holds values that no image
            has: NaN, infinity, other types than float32, or impossible sizes.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path)
    if not file.is_file():  # opening a FIFO would wait for a writer
        raise InputError(f"{file}: no such file, or not a regular one")
    features: dict[str, NDArray[np.float32]] = {}
    try:
        EMBEDDING_BYTES.check(size := file.stat().st_size, f"{file}: {size >> 20} MiB")
        with safe_open(file, framework="np") as opened:
            text = (opened.metadata() or {}).get(_KEY)
            if text is None:
                raise InputError(
                    f"{file}: not an embedding; ImageEmbedding.save writes such a file"
                )
            header = msgspec.json.decode(text, type=_Header)
            for name in opened.keys():  # noqa: SIM118 - it is not a mapping
                dtype = opened.get_slice(name).get_dtype()
                if dtype != "F32":
                    raise InputError(f"{file}: {name} is {dtype}, but F32 is needed")
                features[name] = opened.get_tensor(name)
    except (SafetensorError, OSError, msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as an embedding ({error})") from error
    if header.version != _VERSION:
        raise InputError(
            f"{file}: an embedding of version {header.version}, this program reads {_VERSION}; "
            "set the image again"
        )
    _check_sizes(header, file)
    for name, array in features.items():
        if not np.isfinite(array).all():
            raise InputError(f"{file}: {name} holds NaN or infinity")
    geometry = Geometry(header.image_size, header.resized, header.original)
    return ImageEmbedding(
        features, geometry, header.bundle_sha256, header.enhanced, header.estimate
    )


class _Header(msgspec.Struct, frozen=True):
    """The description of an embedding in its file; sizes are in pixels, (height, width)."""

    version: int
    bundle_sha256: str
    enhanced: bool
    image_size: int
    resized: tuple[int, int]
    original: tuple[int, int]
    estimate: float | None = None


def _check_sizes(header: _Header, file: Path) -> None:
    """Refuse sizes that no image has.

    Raises:
        InputError: naming the file.
    """
    height, width = header.original
    inside = all(1 <= side <= header.image_size for side in header.resized)
    if not inside or min(height, width) < 1:
        raise InputError(
            f"{file}: an image of {width} x {height} pixels, resized to {header.resized[1]} x "
            f"{header.resized[0]} in a square of {header.image_size}, does not exist"
        )
    check_picture(width, height, str(file))
