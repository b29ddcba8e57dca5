"""GleSAM's runtime: a photo and prompts to masks, from a verified bundle, without torch.

from glesam_runtime import GleSamPredictor
from glesam_runtime.image import read_image

predictor = GleSamPredictor("bundle/")
predictor.set_image(read_image("photo.jpg"))
masks, scores, low_res = predictor.predict([[120, 80]], [1])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle, open_bundle
    from glesam_runtime.errors import (
        BackendError,
        BundleError,
        CheckpointError,
        GlesamError,
        InputError,
        ParityError,
    )
    from glesam_runtime.everything.generator import GleSamMaskGenerator
    from glesam_runtime.image import read_image
    from glesam_runtime.many import segment_many
    from glesam_runtime.predictor import GleSamPredictor

    __version__: str

_HOMES = {
    "GleSamMaskGenerator": "everything.generator",
    "GleSamPredictor": "predictor",
    "Bundle": "bundle",
    "open_bundle": "bundle",
    "read_image": "image",
    "segment_many": "many",
    "GlesamError": "errors",
    "InputError": "errors",
    "BundleError": "errors",
    "BackendError": "errors",
    "CheckpointError": "errors",
    "ParityError": "errors",
}

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "GleSamMaskGenerator",
    "GleSamPredictor",
    "GlesamError",
    "InputError",
    "ParityError",
    "open_bundle",
    "read_image",
    "segment_many",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that `--help` costs no numpy."""
    if name == "__version__":
        from importlib.metadata import version

        return version("glesam-deploy")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
