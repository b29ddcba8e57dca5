"""Both readers refuse tampered bundles, with the same code and for the same field."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from tampering import (
    CALIBRATION,
    CHANGES,
    GATE,
    PARSERS_OWN,
    edited,
    in_a_cache,
    of_engines,
    on_a_volume,
    with_first_resize,
    with_golden_prompts,
)

from glesam_runtime import BundleError, open_bundle
from glesam_runtime.bundle import load_golden

ROOT = Path(__file__).parents[3]
BAD_BUNDLE = "2"
"""The C++ library's code of BundleError."""
_PARSERS_WORDS = re.compile("Expected `|Invalid enum value|Object missing required field")
"""Python's JSON reader describes a wrong field in words of its own; C++ says it in other words."""


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small bundle that obeys the contract."""
    helpers = _load(ROOT / "tests/runtime/conftest.py")
    folder: Path = helpers.write_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle")
    return folder


def test_both_readers_say_the_same(toy: Path, programs: Path, tmp_path: Path) -> None:
    folders = {}
    for number, (name, change) in enumerate({**CHANGES, **PARSERS_OWN}.items()):
        folders[name] = shutil.copytree(toy, tmp_path / str(number) / "bundle")
        change(folders[name])
    run = subprocess.run(
        [programs / "read_bundle", *folders.values()], capture_output=True, text=True, check=True
    )
    codes, lines = zip(*(line.split(" ", 1) for line in run.stdout.splitlines()), strict=True)
    assert set(codes) == {BAD_BUNDLE}
    said = dict(zip(folders, lines, strict=True))
    for name, folder in folders.items():
        with pytest.raises(BundleError) as caught:
            load_golden(open_bundle(folder))
        # Both command lines print a message on one line.
        expected = " ".join(str(caught.value).split())
        if name in PARSERS_OWN:
            assert _outside_parentheses(said[name]) == _outside_parentheses(expected), name
        elif _PARSERS_WORDS.search(expected):
            assert _field(said[name]) == _field(expected), name
            assert said[name].startswith(f"{folder}/manifest.json: "), name
            assert said[name].endswith("; export the bundle again"), name
        else:
            assert said[name] == expected, name
    print(f"{len(folders)} bundles refused by both")


def test_both_readers_open_a_good_one(
    toy: Path, nano: Path, programs: Path, tmp_path: Path
) -> None:
    more = shutil.copytree(nano, tmp_path / "more")
    edited("a_field_of_a_later_version", to={"x": [1]})(more)
    open_bundle(more)
    none = shutil.copytree(nano, tmp_path / "none")
    edited("requires", to=[])(none)
    open_bundle(none)
    first = shutil.copytree(nano, tmp_path / "first")
    with_first_resize(128)(first)
    open_bundle(first)
    engines = shutil.copytree(nano, tmp_path / "engines")
    of_engines(edited("calibration", to=CALIBRATION))(engines)
    open_bundle(engines)
    gate = shutil.copytree(nano, tmp_path / "gate")
    edited("enhancement_gate", to=GATE)(gate)
    open_bundle(gate)
    cache, volume = (shutil.copytree(nano, tmp_path / name) for name in ("cache", "volume"))
    for change, folder in ((in_a_cache, cache), (on_a_volume, volume)):
        change(folder)
        open_bundle(folder)
    prompts = shutil.copytree(toy, tmp_path / "prompts")
    with_golden_prompts(64)(prompts)
    load_golden(open_bundle(prompts))
    folders = nano, more, none, first, engines, gate, cache, volume, prompts
    run = subprocess.run(
        [programs / "read_bundle", *folders], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == ["0 "] * len(folders)


def _field(message: str) -> tuple[str, ...]:
    """Return the path of the field that a message is about, and the member that it lacks."""
    path = re.search(r"`(\$[^`]*)`", message)
    member = re.search(r"(?:missing required field `|lacks the field )(\w+)", message)
    return path[1] if path else "$", member[1] if member else ""


def _outside_parentheses(message: str) -> str:
    return re.sub(r"\(.*\)", "()", message)
