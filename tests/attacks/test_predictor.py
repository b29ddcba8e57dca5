"""Give the predictor what a hostile or careless caller would, and check that its image stays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import GleSamPredictor
from glesam_runtime.embedding import load_embedding
from glesam_runtime.errors import InputError

pytestmark = [pytest.mark.attack, pytest.mark.second]

_NAN, _INF = float("nan"), float("inf")
_PIXELS = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
_POINT: dict[str, Any] = {"point_coords": [[9.0, 9.0]], "point_labels": [1]}
_CLOSED = Image.new("RGB", (20, 20))
_CLOSED.close()
_IMAGES: dict[str, Any] = {
    "objects": np.full((4, 4, 3), None, object),
    "text": np.full((4, 4, 3), "x"),
    "no pixels": np.zeros((0, 0, 3), np.uint8),
    "NaN": np.full((4, 4, 3), _NAN),
    "numbers above 255": np.full((4, 4, 3), 300),
    "complex numbers": np.ones((4, 4, 3), complex),
    "fields": np.zeros((4, 4), [("r", "u1"), ("g", "u1"), ("b", "u1")]),
    "gray": _PIXELS[..., 0],
    "four channels": np.dstack([_PIXELS, _PIXELS[..., :1]]),
    "channels first": _PIXELS.transpose(2, 0, 1),
    "five axes": _PIXELS[None, None],
    "lists": _PIXELS.tolist(),
    "bytes": _PIXELS.tobytes(),
    "a path": "x.png",
    "nothing": None,
    "CMYK": Image.new("CMYK", (20, 20)),
    "a closed image": _CLOSED,
    "10^10 pixels": np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (100_000, 100_000, 3)),
}
_PROMPTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a point of NaN": {**_POINT, "point_coords": [[_NAN, 1]]},
    "a point of infinity": {**_POINT, "point_coords": [[_INF, 1]]},
    "a point at 1e30": {**_POINT, "point_coords": [[1e30, 1]]},
    "a point of objects": {**_POINT, "point_coords": [[None, 1]]},
    "a point of text": {**_POINT, "point_coords": [["9", "9"]]},
    "a complex point": {**_POINT, "point_coords": [[9 + 1j, 9]]},
    "a point of dates": {**_POINT, "point_coords": np.zeros((1, 2), "M8[D]")},
    "a point of three": {**_POINT, "point_coords": [[1, 2, 3]]},
    "points of four axes": {**_POINT, "point_coords": np.zeros((1, 1, 1, 2))},
    "no points": {"point_coords": np.zeros((0, 2)), "point_labels": []},
    "points of two lengths": {"point_coords": [[[1, 2]], [[1, 2], [3, 4]]], "point_labels": [[1]]},
    "5 million points": {
        "point_coords": np.ones((5_000_000, 2)),
        "point_labels": np.ones(5_000_000),
    },
    "labels of text": {**_POINT, "point_labels": ["1"]},
    "a label of 2": {**_POINT, "point_labels": [2]},
    "a label of a half": {**_POINT, "point_labels": [0.5]},
    "two labels of a point": {**_POINT, "point_labels": [1, 1]},
    "labels alone": {"point_labels": [1]},
    "a box of NaN": {"box": [_NAN, 1, 2, 3]},
    "a box of infinity": {"box": [0, 0, _INF, _INF]},
    "a box of 1e308": {"box": [-1e308, -1e308, 1e308, 1e308]},
    "10^9 boxes": {"box": np.broadcast_to(np.asarray([1.0, 1, 9, 9]), (10**9, 4))},
    "a box of three": {"box": [1, 2, 3]},
    "a box of text": {"box": "1,2,3,4"},
    "a box of a mapping": {"box": {"x0": 1}},
    "a mask of another size": {**_POINT, "mask_input": np.zeros((1, 9, 9), np.float32)},
    "a mask of NaN": {**_POINT, "mask_input": np.full((1, 64, 64), _NAN, np.float32)},
    "a mask of 1e300": {**_POINT, "mask_input": np.full((1, 64, 64), 1e300)},
    "three masks": {**_POINT, "mask_input": np.zeros((3, 64, 64), np.float32)},
}
_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "half": lambda sound: sound[: len(sound) // 2],
    "a header of 2^60 bytes": lambda sound: (1 << 60).to_bytes(8, "little") + sound[8:],
    "a header of brackets": lambda _: (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "another bundle": lambda sound: sound.replace(b"bundle_sha256", b"bundle_sha255"),
    "a pickle": lambda _: b"cos\nsystem\n(S'touch witness'\ntR.",
    "zeros": lambda sound: bytes(len(sound)),
}


@pytest.fixture(scope="module")
def predictor() -> GleSamPredictor:
    made = GleSamPredictor(backend="onnxruntime")
    made.set_image(_PIXELS)
    return made


@pytest.fixture
def unchanged(predictor: GleSamPredictor) -> Iterator[GleSamPredictor]:
    """Check that a failed call leaves the image and its masks as they were."""
    before = predictor.predict(**_POINT)[0]
    yield predictor
    assert np.array_equal(predictor.predict(**_POINT)[0], before)


@pytest.mark.parametrize("name", _IMAGES)
def test_no_image(name: str, unchanged: GleSamPredictor) -> None:
    with pytest.raises(InputError, match=r"image"):
        unchanged.set_image(_IMAGES[name])


@pytest.mark.parametrize("name", _PROMPTS)
def test_no_prompt(name: str, unchanged: GleSamPredictor) -> None:
    with pytest.raises(InputError) as raised:
        unchanged.predict(**_PROMPTS[name])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", _DAMAGE)
def test_damaged_embedding(name: str, unchanged: GleSamPredictor, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    unchanged.get_embedding().save(path)
    sound = path.read_bytes()
    damaged = _DAMAGE[name](sound)
    assert damaged != sound
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"a\.safetensors"):
        unchanged.set_embedding(load_embedding(path))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/zero")
def test_endless_embedding() -> None:
    with pytest.raises(InputError, match="/dev/zero"):
        load_embedding(Path("/dev/zero"))
