"""Bundles come from a hub by name: pinned, verified, cached, offline. Errors are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glesam_runtime import GleSamPredictor
from glesam_runtime.bundle import builtin_bundle_path, open_bundle
from glesam_runtime.errors import BundleError
from glesam_runtime.hub import form_of, repository_of

from ..hub_server import HubServer, Repo, serve_empty_hub

NAME = "lab/nano"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve the built-in bundle as lab/nano. The cache is empty and the folder too."""
    with serve_empty_hub(tmp_path, monkeypatch) as server:
        monkeypatch.setenv("HF_TOKEN", "")
        files = {path.name: path.read_bytes() for path in builtin_bundle_path().iterdir()}
        server.repos[NAME] = Repo()
        server.repos[NAME].commit(files)
        yield server


@pytest.mark.parametrize(
    ("text", "name", "revision"),
    [
        ("lab/nano", "lab/nano", None),
        ("lab/nano@main", "lab/nano", "main"),
        ("l.a-b/n_4@refs/pr/1", "l.a-b/n_4", "refs/pr/1"),
    ],
)
def test_names_of_repositories(text: str, name: str, revision: str | None) -> None:
    found = form_of(text)
    assert found is not None
    assert (found.name, found.revision) == (name, revision)


PATHS = "nano ./lab/nano /lab/nano ../nano lab/nano/ a/b/c lab/../x ~/nano lab/nano@ C:/nano -a/b"


@pytest.mark.parametrize("text", [*PATHS.split(), "lab\\nano", "lab/na no", "a/.b", ""])
def test_everything_else_is_a_path(text: str) -> None:
    assert form_of(text) is None


def test_nothing_that_may_be_a_path_reaches_the_hub(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for path in ("out/nano", "./lab/nano", Path("lab/nano")):
        with pytest.raises(BundleError, match="no such bundle folder"):
            open_bundle(path)
    (tmp_path / "lab" / "nano").mkdir(parents=True)
    assert repository_of(NAME) is None
    with pytest.raises(BundleError, match=r"lab/nano: not a bundle, because it has no manifest"):
        open_bundle(NAME)
    assert hub.requests == []


def test_revision_is_pinned_and_files_are_links_of_the_cache(hub: HubServer) -> None:
    first = hub.repos[NAME].head
    opened = open_bundle(NAME)
    assert opened.snapshot is not None
    assert (opened.snapshot.repository, opened.snapshot.revision) == (NAME, first)
    assert opened.sha256 == open_bundle().sha256
    assert opened.graph_path("encoder").is_symlink()
    hub.repos[NAME].commit({"README.md": b"no bundle any more"})
    with pytest.raises(BundleError, match=r"lab/nano: not a bundle, because .* no manifest.json"):
        open_bundle(NAME)
    hub.requests.clear()
    pinned = open_bundle(f"{NAME}@{first}")
    assert pinned.snapshot == opened.snapshot
    assert [each for each in hub.requests if each.startswith("GET")] == []


def test_predictor_by_name_and_offline(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    predictor = GleSamPredictor(NAME)
    assert predictor.bundle.snapshot is not None
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_bundle(NAME).sha256 == predictor.bundle.sha256
    with pytest.raises(BundleError, match=r"lab/other: manifest.json is not in the cache and HF_H"):
        open_bundle("lab/other")
    assert hub.requests == []


def test_interrupted_download_is_repaired(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.cut["encoder.onnx"] = 1000
    size = (builtin_bundle_path() / "encoder.onnx").stat().st_size
    opened = open_bundle(NAME)  # huggingface_hub resumes by itself
    assert opened.graph_path("encoder").stat().st_size == size
    gets = [each for each in hub.requests if each.startswith("GET") and "encoder" in each]
    assert len(gets) == 2


def test_flipped_byte_is_refused(hub: HubServer) -> None:
    head = hub.repos[NAME].head
    assert head is not None
    files = hub.repos[NAME].commits[head]
    graph = bytearray(files["decoder.onnx"])
    graph[5000] ^= 1
    hub.repos[NAME].commit({**files, "decoder.onnx": bytes(graph)})
    with pytest.raises(BundleError, match=r"decoder.onnx: altered, its sha256"):
        open_bundle(NAME)
    assert open_bundle(f"{NAME}@{head}").sha256


def test_tokens(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos[NAME].token = "hf_right"
    for token, message in (
        ("", r"neither a folder here nor a repository .* HF_TOKEN"),
        ("hf_wrong", r"refuses the token; set HF_TOKEN or run 'hf auth login' with a valid one"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(BundleError, match=message):
            open_bundle(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert open_bundle(NAME).snapshot is not None


def test_other_refusals(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["lab/gated"] = Repo(gated=True)
    hub.broken.add("decoder.onnx")
    for name, message in (
        (NAME, "decoder.onnx cannot be downloaded .*; try again, what was downloaded is kept"),
        ("lab/absent", "neither a folder here nor a repository"),
        ("lab/gated", "the repository is gated; ask for access"),
        (f"{NAME}@v9", "the repository has no revision 'v9'"),
    ):
        with pytest.raises(BundleError, match=message) as caught:
            open_bundle(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="no such bundle folder; check the path"):
        open_bundle("lab/nano.git")  # a form that the hub forbids
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match=r"no such bundle folder; .* 'glesam-runtime\[hub\]'"):
        open_bundle(NAME)


def test_command_with_the_real_environment_variables(hub: HubServer, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
    environment["HF_HUB_DISABLE_XET"] = "1"
    command = [sys.executable, "-m", "glesam_runtime", "--selftest", "--json", "--bundle"]
    done = subprocess.run([*command, NAME], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)["bundle"]
    assert (about["repository"], about["revision"]) == (NAME, hub.repos[NAME].head)
    done = subprocess.run([*command, "lab/none"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: lab/none: neither a folder here nor a repository")
    assert done.stderr.count("\n") == 1


def test_huggingface_hub_does_not_warn_of_each_attempt(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its warnings come back afterwards: another program's use of the package stays as it was."""
    from huggingface_hub import file_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import logging

    logger = logging.get_logger("huggingface_hub.file_download")

    def unreachable(*_: object, **__: object) -> None:
        logger.warning("Retrying in 1s [Retry 1/5].")
        raise LocalEntryNotFoundError("no")

    monkeypatch.setattr(file_download, "_hf_hub_download_to_cache_dir", unreachable)
    with pytest.raises(BundleError, match="cannot be reached; check the path or the connection"):
        open_bundle(NAME)
    assert capfd.readouterr().err == ""
    assert logger.isEnabledFor(logging.WARNING)
