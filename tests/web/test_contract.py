"""The page's library accepts and refuses what the Python runtime accepts and refuses."""

from __future__ import annotations

import base64
import copy
import importlib.util
import json
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from glesam_runtime import BundleError, InputError, manifest_file
from glesam_runtime.image import geometry_of
from glesam_runtime.manifest import PROMPT_LABELS, Coordinates
from glesam_runtime.prompts import as_batch, prompt_tensors

from .conftest import Cases

NANO = Path(str(files("glesam_runtime") / "nano" / "manifest.json"))


def tampering() -> ModuleType:
    """Return the changes that the C++ library is tested with."""
    path = Path(__file__).parents[2] / "runtime/cpp/tests/tampering.py"
    spec = importlib.util.spec_from_file_location("tampering", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def manifests() -> dict[str, bytes]:
    """Return nano's manifest, and copies with one change each, by name."""
    changes = tampering()
    good = json.loads(NANO.read_bytes())
    made = {"good": NANO.read_bytes(), "not JSON": b"{", "not UTF-8": b'{"format": "\xff"}'}
    for name, (*keys, value) in changes.MANIFESTS.items():
        if name == "version 1.0":  # JSON.parse does not tell it from 1
            continue
        manifest = copy.deepcopy(good)
        place: Any = manifest
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = copy.deepcopy(value)
        made[name] = json.dumps(manifest).encode()
    for key in changes.REMOVED:
        made[f"without {key}"] = json.dumps({k: v for k, v in good.items() if k != key}).encode()
    made["a new field"] = json.dumps({**good, "levels": [1]}).encode()
    return made


def test_manifests_are_judged_as_in_python(cases: Cases) -> None:
    every = manifests()
    for raw in every.values():
        cases.add("manifest", bytes=base64.b64encode(raw).decode())
    for (name, raw), result in zip(every.items(), cases.run(), strict=True):
        try:
            manifest_file.parse(raw, "manifest.json")
        except BundleError:
            assert result.get("error") == "BundleError", name
            assert result["message"].startswith("manifest.json: "), name
            assert "\n" not in result["message"], name
        else:
            assert "error" not in result, (name, result)


def test_a_newer_bundle_is_named(cases: Cases) -> None:
    every = manifests()
    for name in ("newer", "a required feature", "another size"):
        cases.add("manifest", bytes=base64.b64encode(every[name]).decode())
    newer, feature, size = [result["message"] for result in cases.run()]
    assert "manifest version 2, this page reads 1; use a newer version" in newer
    assert 'requires "levels", which this page does not support' in feature
    assert "the contract says image[1,3,128,128]" in size


PROMPTS: dict[str, dict[str, Any]] = {
    "a point": {"point_coords": [[10, 20]], "point_labels": [1]},
    "a point on the edge": {"point_coords": [[300, 200]], "point_labels": [0]},
    "two points": {"point_coords": [[1.5, 2], [3, 4]], "point_labels": [1, 0]},
    "two prompts": {"point_coords": [[[1, 2]], [[3, 4]]], "point_labels": [[1], [1]]},
    "a padded point": {"point_coords": [[1, 2], [-9, 1e9]], "point_labels": [1, -1]},
    "a box": {"box": [10, 20, 30, 40]},
    "two boxes": {"box": [[10, 20, 30, 40], [0, 0, 300, 200]]},
    "a box with swapped corners": {"box": [30, 40, 10, 20]},
    "a box beyond the image": {"box": [-10, -20, 310, 220]},
    "a box and a point": {"box": [1, 2, 3, 4], "point_coords": [[1, 2]], "point_labels": [1]},
    "nothing": {},
    "points without labels": {"point_coords": [[1, 2]]},
    "labels without points": {"point_labels": [1]},
    "a point outside": {"point_coords": [[301, 2]], "point_labels": [1]},
    "a negative point": {"point_coords": [[-1, 2]], "point_labels": [1]},
    "an unknown label": {"point_coords": [[1, 2]], "point_labels": [2]},
    "more labels": {"point_coords": [[1, 2]], "point_labels": [1, 1]},
    "three coordinates": {"point_coords": [[1, 2, 3]], "point_labels": [1]},
    "a box outside": {"box": [400, 20, 430, 40]},
    "a box far beyond": {"box": [-400, 0, 100, 40]},
    "half a box": {"box": [1, 2]},
    "as many boxes as not points": {
        "box": [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]],
        "point_coords": [[[1, 2]], [[3, 4]]],
        "point_labels": [[1], [1]],
    },
    "no boxes": {"box": []},
    "no points": {"point_coords": [], "point_labels": []},
}


@pytest.mark.parametrize("box", ["two_points", "two_points_padded"])
def test_prompts_are_the_predictors(cases: Cases, box: str) -> None:
    rules = Coordinates("xy", "resized_pixels", 0.5, PROMPT_LABELS, box)  # type: ignore[arg-type]
    geometry = geometry_of(200, 300, 256)
    for prompt in PROMPTS.values():
        cases.add(
            "prompts",
            prompt=prompt,
            rules=msgspec.to_builtins(rules),
            height=200,
            width=300,
            size=256,
            resize="longest_side",
        )
    for (name, prompt), result in zip(PROMPTS.items(), cases.run(), strict=True):
        try:
            expected = prompt_tensors(as_batch(geometry, **prompt)[1], geometry, rules)
        except InputError:
            assert result.get("error") == "InputError", (name, result)
            continue
        assert "error" not in result, (name, result)
        for tensor, (shape, values) in result.items():
            assert shape == list(expected[tensor].shape), (name, tensor)
            np.testing.assert_array_equal(
                np.asarray(values, np.float32), expected[tensor].ravel(), err_msg=name
            )
