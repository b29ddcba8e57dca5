"""A site holds what its page needs, and glesam-serve serves it; no browser runs here."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from msgspec import structs
from starlette.applications import Starlette
from starlette.testclient import TestClient

from glesam_export.web_site import ENGINES, ORT_VERSION, write_site
from glesam_runtime import BundleError, InputError
from glesam_runtime.bundle import builtin_bundle_path, open_bundle
from glesam_runtime.manifest import IMAGE_INDEX
from glesam_serving.server.pages import Page, check_site


@pytest.fixture
def engine_files(tmp_path: Path) -> Path:
    """Return a folder with the names of onnxruntime-web's files."""
    folder = tmp_path / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    for module, binary in ENGINES.values():
        for name in (module, f"{binary}.mjs", f"{binary}.wasm"):
            (folder / name).write_bytes(name.encode())
    (folder.parent / "package.json").write_text(json.dumps({"version": ORT_VERSION}))
    return folder


def test_site_holds_page_engine_and_bundle(engine_files: Path, tmp_path: Path) -> None:
    made = write_site(open_bundle(), tmp_path / "site", engine_files)
    site = tmp_path / "site"
    assert made.note is None
    assert made.bytes == sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    described = json.loads((site / "site.json").read_bytes())
    assert described["stages"] == ["encoder", "enhancer", "decoder"]
    assert list(described["engines"]) == ["wasm"]
    assert (site / described["engines"]["wasm"]).is_file()
    for path in builtin_bundle_path().iterdir():
        assert (site / "bundle" / path.name).read_bytes() == path.read_bytes()
    head = (site / "index.html").read_text()
    assert "default-src 'none'" in head
    assert 'name="glesam-site"' in head


def test_service_worker_keeps_every_file_but_the_graphs(engine_files: Path, tmp_path: Path) -> None:
    write_site(open_bundle(), tmp_path / "site", engine_files, webgpu=True)
    script = (tmp_path / "site" / "sw.js").read_text()
    found = re.search(r"const FILES = (\[.*\]);", script)
    assert found is not None
    kept = set(json.loads(found[1]))
    every = {
        path.relative_to(tmp_path / "site").as_posix()
        for path in (tmp_path / "site").rglob("*")
        if path.is_file()
    }
    graphs = {name for name in every if name.endswith((".onnx", ".safetensors"))}
    assert kept == {"./"} | (every - graphs - {"sw.js"})
    # Another file changes the worker, so that browsers replace what they keep.
    (engine_files / "ort.wasm.min.mjs").write_bytes(b"other")
    write_site(open_bundle(), tmp_path / "second", engine_files, webgpu=True)
    assert (tmp_path / "second" / "sw.js").read_text() != script


def test_bundle_above_the_limit_gets_the_decoder(engine_files: Path, tmp_path: Path) -> None:
    made = write_site(open_bundle(), tmp_path / "site", engine_files, max_mb=10)
    assert made.stages == ("decoder",)
    assert made.note is not None
    assert "22 MB, more than 10 MB" in made.note
    assert not (tmp_path / "site" / "bundle" / "encoder.onnx").exists()
    with pytest.raises(InputError, match="--max-mb 5: the decoder alone has 9 MB"):
        write_site(open_bundle(), tmp_path / "other", engine_files, max_mb=5)


def test_engine_files_that_lack_something(engine_files: Path, tmp_path: Path) -> None:
    (engine_files / "ort.webgpu.min.mjs").unlink()
    with pytest.raises(InputError, match=r"ort.webgpu.min.mjs: no such file; run 'npm install"):
        write_site(open_bundle(), tmp_path / "site", engine_files, webgpu=True)
    (engine_files.parent / "package.json").write_text(json.dumps({"version": "1.0.0"}))
    with pytest.raises(InputError, match=rf"onnxruntime-web 1.0.0, .* needs {ORT_VERSION}"):
        write_site(open_bundle(), tmp_path / "site", engine_files)
    assert not (tmp_path / "site").exists()


def test_server_adds_that_it_is_there(engine_files: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    write_site(open_bundle(), site, engine_files)
    check_site(site)
    app = Starlette()
    app.add_route("/{path:path}", Page(site).file)
    with TestClient(app) as http:
        described = http.get("/site.json").json()
        assert described["server"] is True
        assert described["service_worker"] is None  # the server isolates its pages itself
        graph = http.get("/bundle/encoder.onnx")
        assert graph.content == (site / "bundle" / "encoder.onnx").read_bytes()
        rest = http.get("/bundle/encoder.onnx", headers={"Range": "bytes=100-"})
        assert rest.status_code == 206
        assert rest.content == graph.content[100:]
        assert (
            http.get("/ort/ort.wasm.min.mjs").headers["content-type"].startswith("text/javascript")
        )
    with pytest.raises(InputError, match=r"--page .*: has no readable site.json"):
        check_site(tmp_path)


def test_a_bundle_or_a_site_is_not_overwritten(engine_files: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(builtin_bundle_path(), tmp_path / "bundle")
    before = {path.name for path in bundle.iterdir()}
    with pytest.raises(InputError, match=r"bundle: exists; choose another folder or remove"):
        write_site(open_bundle(bundle), bundle, engine_files)
    assert {path.name for path in bundle.iterdir()} == before


def test_a_decoder_that_the_page_cannot_call_is_refused(engine_files: Path, tmp_path: Path) -> None:
    bundle = open_bundle()
    manifest = structs.replace(bundle.manifest, requires=[IMAGE_INDEX])
    indexed_bundle = dataclasses.replace(bundle, manifest=manifest)
    with pytest.raises(BundleError, match=r"several images.*; export without --image-index"):
        write_site(indexed_bundle, tmp_path / "site", engine_files)
    assert not (tmp_path / "site").exists()
