"""Segment images of any quality with a verified GleSAM bundle, without torch.

from glesam_runtime import GleSamPredictor, read_image

predictor = GleSamPredictor()  # the built-in nano; or GleSamPredictor("bundle/")
predictor.set_image(read_image("photo.jpg"))
masks, scores, low_res_masks = predictor.predict([[120, 80]], [1])

The names in `__all__` are the public API.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle, open_bundle
    from glesam_runtime.demo import sample_image
    from glesam_runtime.embedding import ImageEmbedding, load_embedding
    from glesam_runtime.engine_options import EngineOptions
    from glesam_runtime.errors import (
        BackendError,
        BundleError,
        BusyError,
        GlesamError,
        InputError,
        ParityError,
    )
    from glesam_runtime.everything.generator import GleSamMaskGenerator, MaskRecord
    from glesam_runtime.expected_work import ExpectedWork
    from glesam_runtime.follow import Followed, Follower
    from glesam_runtime.golden import SelftestResult
    from glesam_runtime.image_file import read_image
    from glesam_runtime.many import Prediction, segment_many
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.selftest import run_selftest
    from glesam_runtime.tiling.predictor import TiledPredictor

    __version__: str

_HOMES = {
    "BackendError": "errors",
    "Bundle": "bundle",
    "BundleError": "errors",
    "BusyError": "errors",
    "EngineOptions": "engine_options",
    "Followed": "follow",
    "Follower": "follow",
    "GleSamMaskGenerator": "everything.generator",
    "GleSamPredictor": "predictor",
    "GlesamError": "errors",
    "ImageEmbedding": "embedding",
    "InputError": "errors",
    "MaskRecord": "everything.generator",
    "ParityError": "errors",
    "Prediction": "many",
    "SelftestResult": "golden",
    "ExpectedWork": "expected_work",
    "TiledPredictor": "tiling.predictor",
    "load_embedding": "embedding",
    "open_bundle": "bundle",
    "read_image": "image_file",
    "run_selftest": "selftest",
    "sample_image": "demo",
    "segment_many": "many",
}

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "BusyError",
    "EngineOptions",
    "ExpectedWork",
    "Followed",
    "Follower",
    "GleSamMaskGenerator",
    "GleSamPredictor",
    "GlesamError",
    "ImageEmbedding",
    "InputError",
    "MaskRecord",
    "ParityError",
    "Prediction",
    "SelftestResult",
    "TiledPredictor",
    "load_embedding",
    "open_bundle",
    "read_image",
    "run_selftest",
    "sample_image",
    "segment_many",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that `--help` needs no numpy."""
    if name == "__version__":
        from importlib.metadata import version

        return version("glesam-runtime")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
