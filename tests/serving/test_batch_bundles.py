"""A node without the bundle gets it, verifies it and keeps it; an address works like a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from glesam_runtime.bundle import open_bundle
from glesam_runtime.errors import BundleError
from glesam_serving.batch import bundles

GONE = Path("/no/such/bundle")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache, and a node whose package has no built-in bundle."""
    monkeypatch.setenv("GLESAM_BUNDLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundles, "builtin_bundle_path", lambda: GONE)
    return tmp_path / "cache"


def test_a_node_keeps_what_it_gets_under_its_hash(cache: Path) -> None:
    bundle = open_bundle()
    assert bundles.find(bundle.sha256, GONE) is None
    kept = bundles.keep(bundles.pack(bundle))
    assert kept.path == cache / bundle.sha256
    assert kept.sha256 == bundle.sha256
    again = bundles.find(bundle.sha256, GONE)
    assert again is not None
    assert again.path == kept.path
    in_place = bundles.find(bundle.sha256, bundle.path)
    assert in_place is not None
    assert in_place.path == bundle.path
    assert bundles.find("0" * 64, bundle.path) is None


def test_a_damaged_copy_is_refused(cache: Path) -> None:
    files = bundles.pack(open_bundle())
    with pytest.raises(BundleError, match=r"decoder\.onnx: altered"):
        bundles.keep({**files, "decoder.onnx": bytes(len(files["decoder.onnx"]))})
    kept = bundles.keep(files)
    (kept.path / "encoder.onnx").write_bytes(b"half")
    with pytest.raises(BundleError, match=r"encoder\.onnx: 4 bytes, the manifest says"):
        bundles.find(kept.sha256, GONE)


def test_an_address_is_fetched(cache: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    bundle = open_bundle()
    for name, content in bundles.pack(bundle).items():
        memory.pipe_file(f"/models/nano/{name}", content)
    assert bundles.open_any("memory://models/nano").path == cache / bundle.sha256
    with pytest.raises(BundleError, match="memory://models/other: cannot be fetched"):
        bundles.open_any("memory://models/other")
    with pytest.raises(BundleError, match="no such bundle folder"):
        bundles.open_any(str(GONE))
