"""Write a static site that runs a bundle in the browser: page, engine, bundle, service worker.

The page is the one of glesam-serve. Its files are found at run time, so that export does not import
serving (ADR 26).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from glesam_runtime.bundle import Bundle
from glesam_runtime.errors import BundleError, InputError
from glesam_runtime.image_index import takes_image_index
from glesam_runtime.manifest import MANIFEST_FILE, STAGES, StageName
from glesam_runtime.staging import staged_folder
from glesam_runtime.timestep_levels import levels_of

ORT_VERSION = "1.30.0"
"""The version of onnxruntime-web that the page is tested with."""
ENGINES = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded"),
    "webgpu": ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify"),
}
"""The module of each provider, and the name of its WebAssembly without the ending."""
MAX_MB = 2048
"""Default limit of the graphs in MB (of 1,000,000 bytes). A browser's buffer has at most 2 GB."""

_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
"""What the page may load where the host sends no policy: only the site's own files."""
_APP = {
    "name": "GleSAM",
    "short_name": "GleSAM",
    "description": "Segment any object of a picture, without a server.",
    "start_url": "./",
    "display": "standalone",
    "background_color": "#f6f7f9",
    "theme_color": "#0b5fc0",
    "icons": [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}],
}
_VERSION_LINE, _FILES_LINE = 'const VERSION = "";', "const FILES = [];"
_HEAD = "<title>GleSAM</title>\n"


@dataclass(frozen=True)
class Site:
    """What was written."""

    stages: tuple[StageName, ...]
    """The graphs of the site."""
    bytes: int
    """The size of the folder."""
    note: str | None
    """What the site cannot do without a server; None if it needs none."""


def write_site(
    bundle: Bundle, output: Path, engine_files: Path, max_mb: int = MAX_MB, webgpu: bool = False
) -> Site:
    """Write a folder for any static host, and for `glesam-serve --page`.

    Args:
        bundle: an ONNX bundle.
        output: a path that does not exist, or an empty folder.
        engine_files: the folder `dist` of the npm package onnxruntime-web.
        max_mb: limit of the graphs. Above it the site holds the decoder only, for embeddings that
            a server computes.
        webgpu: whether the site also holds the engine for WebGPU.

    Raises:
        BundleError: the bundle holds engines for GPUs, or a decoder that the page cannot call.
        InputError: a file of the engine or the page is missing, or `output` cannot be written.
    """
    if bundle.manifest.target.engine != "onnx":
        raise BundleError(
            f"{bundle.path}: holds engines for {bundle.manifest.target.engine}, which browsers "
            "cannot run; give the ONNX bundle that they were compiled from"
        )
    if takes_image_index(bundle.manifest):
        raise BundleError(
            f"{bundle.path}: its decoder takes prompts of several images, which the page does not; "
            "export without --image-index"
        )
    if levels_of(bundle.manifest):
        raise BundleError(
            f"{bundle.path}: its enhancer has several timesteps, which the page does not support; "
            "export with one --timestep"
        )
    providers = tuple(ENGINES) if webgpu else ("wasm",)
    page, engines = _page_folder(), _engine_paths(engine_files, providers)
    stages, note = _fitting_stages(bundle, max_mb)
    with staged_folder(output, replaces_bundle=False) as folder:
        shutil.copytree(page, folder, dirs_exist_ok=True)
        (folder / "ort").mkdir()
        for path in engines:
            shutil.copy(path, folder / "ort" / path.name)
        _copy_bundle(bundle, stages, folder / "bundle")
        sample = files("glesam_runtime") / "sample" / "sample.jpg"
        (folder / "sample.jpg").write_bytes(sample.read_bytes())
        (folder / "app.webmanifest").write_text(json.dumps(_APP, indent=2))
        described = {
            "server": False,
            "bundle": "bundle/",
            "engines": {name: f"ort/{ENGINES[name][0]}" for name in providers},
            "stages": stages,
            "service_worker": "sw.js",
            **({} if note is None else {"note": note}),
        }
        (folder / "site.json").write_text(json.dumps(described, indent=2))
        _mark_page(folder / "index.html")
        _fill_service_worker(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Site(stages, size, note)


def _page_folder() -> Path:
    """Return the folder of the page.

    Raises:
        InputError: glesam-serve's package is not installed.
    """
    if find_spec("glesam_serving") is None:
        raise InputError("the page is missing; install glesam-deploy[serve]")
    return Path(str(files("glesam_serving") / "page"))


def _engine_paths(folder: Path, providers: Iterable[str]) -> list[Path]:
    """Return the files of onnxruntime-web.

    Raises:
        InputError: a file is missing, or the package has another version.
    """
    remedy = f"run 'npm install onnxruntime-web@{ORT_VERSION}' and give --engine-files its 'dist'"
    names = [
        name
        for provider in providers
        for module, binary in [ENGINES[provider]]
        for name in (module, f"{binary}.mjs", f"{binary}.wasm")
    ]
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; {remedy}")
    try:
        version = json.loads((folder.parent / "package.json").read_bytes())["version"]
    except (OSError, ValueError, KeyError, TypeError):
        version = None  # the files were copied out of their package
    if version not in (None, ORT_VERSION):
        raise InputError(
            f"{folder}: onnxruntime-web {version}, but the page needs {ORT_VERSION}; {remedy}"
        )
    return [folder / name for name in names]


def _fitting_stages(bundle: Bundle, max_mb: int) -> tuple[tuple[StageName, ...], str | None]:
    """Return the stages within the limit, and what is missing because of it.

    Raises:
        InputError: not even the decoder is within the limit.
    """
    sizes = {name: _bytes_of(bundle, name) / 1e6 for name in STAGES}
    whole = sum(sizes.values())
    if whole <= max_mb:
        return STAGES, None
    if sizes["decoder"] > max_mb:
        raise InputError(
            f"--max-mb {max_mb}: the decoder alone has {sizes['decoder']:.0f} MB; give a larger "
            "number"
        )
    return ("decoder",), (
        f"This site holds the decoder only, because all graphs together have {whole:.0f} MB, more "
        f"than {max_mb} MB. Serve it with glesam-serve --page, which encodes the pictures."
    )


def _bytes_of(bundle: Bundle, stage: StageName) -> int:
    record = bundle.manifest.stages[stage]
    return sum(ref.bytes for ref in (record.graph, record.data) if ref is not None)


def _copy_bundle(bundle: Bundle, stages: tuple[StageName, ...], folder: Path) -> None:
    """Copy the manifest and the files of some stages. The manifest keeps its hash."""
    folder.mkdir()
    records = [bundle.manifest.stages[stage] for stage in stages]
    refs = [ref for record in records for ref in (record.graph, record.data) if ref is not None]
    for name in (MANIFEST_FILE, bundle.manifest.golden.file, *(ref.file for ref in refs)):
        shutil.copyfile(bundle.path / name, folder / name)


def _mark_page(path: Path) -> None:
    """Tell the page that it belongs to a site, and limit what it may load."""
    text = path.read_text(encoding="utf-8")
    if text.count(_HEAD) != 1:
        raise InputError(f"{path}: the page has another head; install glesam-deploy again")
    lines = (
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="glesam-site" content="site.json">\n'
        '<link rel="manifest" href="app.webmanifest">\n'
    )
    path.write_text(text.replace(_HEAD, lines + _HEAD), encoding="utf-8")


def _fill_service_worker(folder: Path) -> None:
    """Name the files that the service worker keeps, and their hash."""
    path = folder / "sw.js"
    script = path.read_text(encoding="utf-8")
    if script.count(_VERSION_LINE) != 1 or script.count(_FILES_LINE) != 1:
        raise InputError(f"{path}: another service worker; install glesam-deploy again")
    kept = sorted(
        name
        for each in folder.rglob("*")
        if each.is_file()
        for name in [each.relative_to(folder).as_posix()]
        # The page keeps the graphs itself. A script cannot keep itself.
        if name != "sw.js" and (not name.startswith("bundle/") or name.endswith(MANIFEST_FILE))
    )
    digest = hashlib.sha256(script.encode())
    for name in kept:
        digest.update(f"{name}\n".encode() + (folder / name).read_bytes())
    script = script.replace(_VERSION_LINE, f'const VERSION = "{digest.hexdigest()[:16]}";')
    script = script.replace(_FILES_LINE, f"const FILES = {json.dumps(['./', *kept])};")
    path.write_text(script, encoding="utf-8")
