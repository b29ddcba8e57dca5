"""A manifest is read as it was written, and anything else is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glesam_runtime import BundleError, manifest, manifest_file
from glesam_runtime.bundle import builtin_bundle_path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def test_dump_and_parse_are_inverse(toy_bundle: Path) -> None:
    raw = (toy_bundle / "manifest.json").read_bytes()
    parsed = manifest_file.parse(raw, "here")
    assert manifest_file.dump(parsed) == raw
    assert raw.endswith(b"}\n")
    assert set(parsed.stages) == set(manifest.STAGES)


def test_the_shipped_manifest_is_written_as_it_was_read() -> None:
    raw = (builtin_bundle_path() / "manifest.json").read_bytes()
    assert manifest_file.dump(manifest_file.parse(raw, "here")) == raw


def test_unknown_fields_are_ignored(toy_bundle: Path) -> None:
    document = json.loads((toy_bundle / "manifest.json").read_bytes())
    document["comment"] = "a later minor addition"
    document["stages"]["encoder"]["speed"] = 3
    document["coordinates"]["depth"] = "metres"
    assert manifest_file.parse(json.dumps(document).encode(), "here")


def test_an_empty_requires_is_none_and_is_not_written(toy_bundle: Path) -> None:
    raw = (toy_bundle / "manifest.json").read_bytes()
    document = json.loads(raw)
    document["requires"] = []
    assert manifest_file.dump(manifest_file.parse(json.dumps(document).encode(), "here")) == raw


def test_a_feature_is_refused_until_it_is_known(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads((toy_bundle / "manifest.json").read_bytes())
    document["requires"] = ["levels", "regions"]
    raw = json.dumps(document).encode()
    with pytest.raises(BundleError) as caught:
        manifest_file.parse(raw, "here")
    assert str(caught.value) == (
        "here: requires 'levels', 'regions', which this program does not support; "
        "upgrade glesam-runtime"
    )
    monkeypatch.setattr(manifest, "KNOWN_FEATURES", frozenset({"levels"}))
    with pytest.raises(BundleError, match="here: requires 'regions', which"):
        manifest_file.parse(raw, "here")
    monkeypatch.setattr(manifest, "KNOWN_FEATURES", frozenset({"levels", "regions"}))
    parsed = manifest_file.parse(raw, "here")
    assert parsed.requires == ("levels", "regions")
    assert manifest_file.parse(manifest_file.dump(parsed), "here") == parsed


def test_a_feature_is_named_before_the_fields_it_changes(toy_bundle: Path) -> None:
    document = json.loads((toy_bundle / "manifest.json").read_bytes())
    document["requires"] = ["levels"]
    document["model"] = "of another type"
    with pytest.raises(BundleError, match="requires 'levels'"):
        manifest_file.parse(json.dumps(document).encode(), "here")
    document["version"], document["requires"] = 2, {"of": "another type"}
    with pytest.raises(BundleError, match="manifest version 2"):
        manifest_file.parse(json.dumps(document).encode(), "here")


SCHEMA_REFUSES: tuple[tuple[Any, ...], ...] = (
    ("stages", "encoder", "graph", "file", "../x"),
    ("requires", "levels"),
    ("requires", [3]),
    ("coordinates", "order", "yx"),
    ("coordinates", "space", "pixels"),
    ("coordinates", "pixel_offset", 0.0),
    ("coordinates", "labels", "padding", 4),
    ("coordinates", "labels", "box_start", 2),
    ("coordinates", "labels", {}),
)


@pytest.mark.parametrize("change", SCHEMA_REFUSES)
def test_the_schema_refuses_what_parse_refuses(change: tuple[Any, ...], toy_bundle: Path) -> None:
    import jsonschema

    document = json.loads((toy_bundle / "manifest.json").read_bytes())
    jsonschema.validate(document, manifest_file.json_schema())
    *keys, last, value = change
    place = document
    for key in keys:
        place = place[key]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, manifest_file.json_schema())
    with pytest.raises(BundleError):
        manifest_file.parse(json.dumps(document).encode(), "here")


def compiled(toy_bundle: Path) -> dict[str, Any]:
    """Return the toy's manifest, changed to describe engines."""
    document: dict[str, Any] = json.loads((toy_bundle / "manifest.json").read_bytes())
    document["target"]["engine"] = "tensorrt-rtx"
    document["target"]["build"] = {
        "version": "1.7.1.116",
        "system": "linux-x86_64",
        "compute_capabilities": ["8.9", "12.0"],
        "source": "0" * 64,
        "precision_seen_in": "network",
    }
    for stage in document["stages"].values():
        stage["graph"]["file"] = stage["graph"]["file"].replace(".onnx", ".engine")
    sizes = {"min": 1, "opt": 2, "max": 4}
    document["stages"]["decoder"]["profile"] = {"B": sizes, "P": sizes}
    return document


def test_a_manifest_of_engines(toy_bundle: Path) -> None:
    import jsonschema

    document = compiled(toy_bundle)
    jsonschema.validate(document, manifest_file.json_schema())
    parsed = manifest_file.parse(json.dumps(document).encode(), "here")
    assert parsed.target.build is not None
    assert parsed.target.build.compute_capabilities == ("8.9", "12.0")
    assert str(parsed.stages["decoder"].profile["B"]) == "1:2:4"  # type: ignore[index]
    assert manifest_file.parse(manifest_file.dump(parsed), "here") == parsed


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("target", "build"), None, "'tensorrt-rtx' needs a 'build'"),
        (("target", "engine"), "onnx", "'onnx' has no 'build'"),
        (("target", "engine"), "tvm", "engine"),
        (("target", "build", "compute_capabilities"), ["sm_89"], "compute_capabilities"),
        (("target", "build", "stripped"), True, "a stripped engine needs 'weights'"),
        (
            ("stages", "encoder", "graph", "file"),
            "encoder.onnx",
            "is not a graph for 'tensorrt-rtx'",
        ),
        (("stages", "decoder", "profile"), None, r"'profile' are \[\], not \['B', 'P'\]"),
        (("stages", "decoder", "profile", "N"), {"min": 1, "opt": 1, "max": 1}, "'N'"),
        (
            ("stages", "decoder", "profile", "B", "opt"),
            9,
            "profile B 1:9:4 is not in ascending order",
        ),
        (
            ("stages", "encoder", "profile"),
            {"B": {"min": 1, "opt": 1, "max": 1}},
            "axes of 'profile'",
        ),
    ],
)
def test_engines_that_contradict_themselves(
    place: tuple[str, ...], value: object, words: str, toy_bundle: Path
) -> None:
    document = compiled(toy_bundle)
    inner: Any = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(BundleError, match=words):
        manifest_file.parse(json.dumps(document).encode(), "here")


def _places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    return [path, *(place for key, value in items for place in _places(value, (*path, key)))]


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_value_anywhere_is_read_or_refused(data: st.DataObject, toy_bundle: Path) -> None:
    document = json.loads((toy_bundle / "manifest.json").read_bytes())
    place = data.draw(st.sampled_from(_places(document)[1:]))
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = data.draw(JSON)
    message, files = "here", ()
    try:
        files = manifest_file.file_refs(manifest_file.parse(json.dumps(document).encode(), "here"))
    except BundleError as error:
        message = str(error)
    assert message.startswith("here")
    assert "\n" not in message
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", ref.file) for ref in files)


@pytest.mark.parametrize("start", ["", '{"format": "glesam-bundle", "version": 1, "model": '])
def test_a_bottomless_document(start: str) -> None:
    with pytest.raises(BundleError):
        manifest_file.parse((start + "[" * 200_000).encode(), "here")


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_no_bytes_get_past(raw: bytes) -> None:
    with pytest.raises(BundleError):
        manifest_file.parse(raw, "here")
