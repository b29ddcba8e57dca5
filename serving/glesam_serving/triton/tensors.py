"""Read the tensors of a request to Triton, and choose its image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.errors import InputError
from glesam_runtime.image import check_image, preprocess
from glesam_runtime.image_file import read_image_with_note

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.predictor import GleSamPredictor
    from glesam_serving.triton.embeddings import Embeddings


def read_tensors(utils: Any, request: Any) -> dict[str, NDArray[Any]]:
    """Return the inputs of a request by name.

    Args:
        utils: Triton's `triton_python_backend_utils`.
        request: the request.
    """
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def text_of(tensors: dict[str, NDArray[Any]], name: str) -> str | None:
    """Return a text input, or None without it.

    Raises:
        InputError: it is not one text in UTF-8.
    """
    raw = bytes_of(tensors, name)
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 ({error})") from error


def bytes_of(tensors: dict[str, NDArray[Any]], name: str) -> bytes | None:
    """Return an input of one element of type STRING, or None without it.

    Raises:
        InputError: it has another number of elements.
    """
    value = _element_of(tensors, name)
    return None if value is None else bytes(value)


def flag_of(tensors: dict[str, NDArray[Any]], name: str, default: bool) -> bool:
    """Return an input of one bool, or the default without it.

    Raises:
        InputError: it has another number of elements.
    """
    value = _element_of(tensors, name)
    return default if value is None else bool(value)


def _element_of(tensors: dict[str, NDArray[Any]], name: str) -> Any:
    value = tensors.get(name)
    if value is None:
        return None
    if value.size != 1:
        raise InputError(f"{name}: one element is needed, not {value.size}")
    return value.reshape(-1)[0]


def pixels_of(tensors: dict[str, NDArray[Any]]) -> NDArray[np.uint8] | None:
    """Return the image of a request, uint8 [H, W, 3], or None if it has only an id.

    Raises:
        InputError: it has two images, or one that cannot be read.
    """
    content = bytes_of(tensors, "image")
    if content is not None and "pixels" in tensors:
        raise InputError("image and pixels: give one of them")
    if content is not None:
        return read_image_with_note(Path("image"), content=content)[0]
    return check_image(tensors["pixels"]) if "pixels" in tensors else None


def set_image(
    predictor: GleSamPredictor, kept: Embeddings, tensors: dict[str, NDArray[Any]]
) -> str:
    """Set the image of a request, from the cache if it is there, and return its id.

    The id is the client's, or a hash of the pixels.

    Raises:
        InputError: there is no image, or the id is not in the cache.
    """
    name = text_of(tensors, "image_id")
    if name is not None and "image" not in tensors and "pixels" not in tensors:
        found = kept.get(name)
        if found is None:
            raise InputError(f"image_id {name}: not kept here; send the image again")
        predictor.set_embedding(found)
        return name
    pixels = pixels_of(tensors)
    if pixels is None:
        raise InputError("no image; give image, pixels or image_id")
    if name is None:
        name = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        if (found := kept.get(name)) is not None:
            predictor.set_embedding(found)
            return name
    predictor.set_prepared(preprocess(pixels, predictor.bundle.manifest.preprocessing))
    kept.put(name, predictor.get_embedding())
    return name
