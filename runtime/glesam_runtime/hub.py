"""Find bundles on the Hugging Face Hub, by the name of a repository.

A string names a repository if it has the form org/name or org/name@revision and can be no path: it
does not exist here, and no folder org does either. Everything else stays a path, and a `Path` is
always one. The files come from huggingface_hub's cache, which downloads what it lacks; the extra
`hub` installs that package. `bundle.open_bundle` verifies the files afterwards, as it does all.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_runtime import manifest_file
from glesam_runtime.errors import BundleError
from glesam_runtime.limits import MANIFEST_BYTES
from glesam_runtime.manifest import MANIFEST_FILE
from glesam_runtime.verbosity import print_note, shows_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_FORM = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?")
INSTALL = "pip install 'glesam-runtime[hub]'"
_LOG_IN = "set HF_TOKEN or run 'hf auth login'"


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, and a revision of it."""

    name: str
    """org/name."""
    revision: str | None
    """A branch, a tag or a commit. None is the default branch."""

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


@dataclass(frozen=True)
class Snapshot:
    """The files of a bundle in the hub's cache."""

    repository: str
    """org/name."""
    revision: str
    """The hash of the commit."""
    folder: Path


def form_of(text: str) -> Repository | None:
    """Return the repository that a string of the form org/name[@revision] names, else None."""
    match = _FORM.fullmatch(text)
    if match is None or ".." in text or "--" in match[1] or match[1].endswith((".git", ".ipynb")):
        return None
    return Repository(match[1], match[2])


def repository_of(text: str) -> Repository | None:
    """Return the repository that a string names, or None if the string is or may be a path."""
    repository = form_of(text)
    if repository is None or Path(text).exists() or Path(text.split("/")[0]).exists():
        return None
    return repository


def fetch(repository: Repository) -> Snapshot:
    """Return the cached files of a bundle. Download those that are not in the cache.

    The revision is resolved once, by the manifest; all other files are those of its commit.

    Raises:
        BundleError: huggingface_hub is not installed, or the hub does not give the files.
    """
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ModuleNotFoundError as error:
        raise BundleError(
            f"{repository}: no such bundle folder; check the path, or {INSTALL} to load it from "
            "the Hugging Face Hub"
        ) from error
    if shows_progress():
        print_note(f"{repository}: no folder here, so it is looked up on {constants.ENDPOINT}")
    else:
        disable_progress_bars()

    def download(file: str, revision: str | None) -> Path:
        with _explained(repository, file):
            return Path(hf_hub_download(repository.name, file, revision=revision))

    with _few_words():
        path = download(MANIFEST_FILE, repository.revision)
        MANIFEST_BYTES.check(path.stat().st_size, f"{repository}: its {MANIFEST_FILE} is too long")
        manifest = manifest_file.parse(path.read_bytes(), f"{repository}: {MANIFEST_FILE}")
        commit = path.parent.name
        for ref in manifest_file.file_refs(manifest):
            download(ref.file, commit)
    return Snapshot(repository.name, commit, path.parent)


@contextmanager
def _few_words() -> Iterator[None]:
    """Leave out huggingface_hub's warnings, two for each attempt at a host that does not answer.

    The attempts take half a minute, and the error at the end says what all of them say.
    """
    import logging as levels

    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(max(before, levels.ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def _explained(repository: Repository, file: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub into one line each."""
    from huggingface_hub import constants, errors

    # Versions before 1 use requests, whose errors are OSErrors.
    failures: tuple[type[Exception], ...] = (OSError, ValueError, errors.HfHubHTTPError)
    if find_spec("httpx") is not None:
        import httpx

        failures += (httpx.HTTPError,)
    try:
        yield
    except errors.GatedRepoError as error:
        raise BundleError(
            f"{repository}: the repository is gated; ask for access on its page, then {_LOG_IN}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise BundleError(
            f"{repository}: neither a folder here nor a repository that you can read on "
            f"{constants.ENDPOINT}; check the name, and if it is private {_LOG_IN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BundleError(
            f"{repository}: the repository has no revision {repository.revision!r}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise BundleError(
                f"{repository}: {file} is not in the cache and HF_HUB_OFFLINE is set; load the "
                "bundle once while online"
            ) from error
        raise BundleError(
            f"{repository}: no folder here, {file} is not in the cache, and {constants.ENDPOINT} "
            "cannot be reached; check the path or the connection"
        ) from error
    except errors.EntryNotFoundError as error:
        raise BundleError(
            f"{repository}: not a bundle, because the repository has no {file}; check the name"
        ) from error
    except failures as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise BundleError(
                f"{repository}: {constants.ENDPOINT} refuses the token; {_LOG_IN} with a valid one"
            ) from error
        words = " ".join(str(error).split())
        raise BundleError(
            f"{repository}: {file} cannot be downloaded ({words}); try again, what was downloaded "
            "is kept"
        ) from error
