"""Bring a bundle to every node: packed once by the driver, kept on each node under its hash."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from glesam_runtime.bundle import Bundle, builtin_bundle_path, open_bundle
from glesam_runtime.errors import BundleError
from glesam_runtime.manifest import MANIFEST_FILE
from glesam_runtime.manifest_file import file_refs
from glesam_runtime.staging import staged_folder


def cache_folder() -> Path:
    """Return the folder of bundles on this node: GLESAM_BUNDLE_CACHE, or one in the temp folder."""
    given = os.environ.get("GLESAM_BUNDLE_CACHE")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"glesam-bundles-{os.getuid()}"


def open_any(place: str | None) -> Bundle:
    """Open a bundle: a folder, an address such as s3://bucket/bundle, or None for the built-in one.

    Raises:
        BundleError: it is no bundle, or cannot be fetched.
    """
    if place is None or "://" not in place:
        return open_bundle(place)
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(place)
        manifest = system.cat_file(f"{path}/{MANIFEST_FILE}")
        names = [MANIFEST_FILE, *_names(manifest, place)]
        files = {name: system.cat_file(f"{path}/{name}") for name in names}
    except BundleError:
        raise
    except Exception as error:  # each file system raises its own types, down to missing libraries
        raise BundleError(
            f"{place}: cannot be fetched ({type(error).__name__}: {error}); check the address and "
            "the credentials"
        ) from error
    return keep(files)


def _names(manifest: bytes, where: str) -> list[str]:
    from glesam_runtime.manifest_file import parse

    return [ref.file for ref in file_refs(parse(manifest, where))]


def pack(bundle: Bundle) -> dict[str, bytes]:
    """Return the files of a bundle by name."""
    names = [MANIFEST_FILE, *(ref.file for ref in file_refs(bundle.manifest))]
    return {name: (bundle.path / name).read_bytes() for name in names}


def find(sha256: str, place: Path) -> Bundle | None:
    """Return the bundle with this hash if this node has it.

    Args:
        sha256: the hash.
        place: where the driver has it; the built-in bundle and the cache are looked at too.

    Raises:
        BundleError: a file in the cache is damaged.
    """
    import hashlib

    for folder in (place, builtin_bundle_path(), cache_folder() / sha256):
        manifest = folder / MANIFEST_FILE
        if manifest.is_file() and hashlib.sha256(manifest.read_bytes()).hexdigest() == sha256:
            return open_bundle(folder)
    return None


def keep(files: dict[str, bytes]) -> Bundle:
    """Write the files of a bundle into this node's cache, and open it.

    Raises:
        BundleError: a file does not match the manifest.
    """
    import hashlib

    folder = cache_folder() / hashlib.sha256(files[MANIFEST_FILE]).hexdigest()
    with staged_folder(folder) as staged:
        for name, content in files.items():
            (staged / name).write_bytes(content)
        open_bundle(staged)  # a damaged one must not get the name
    return open_bundle(folder)
