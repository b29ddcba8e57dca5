"""A bundle that was pushed to a hub comes back the same, with a card of its measured figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glesam_runtime.bundle import builtin_bundle_path, open_bundle

from ..hub_server import HubServer, serve_empty_hub

NAME = "lab/pushed"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_empty_hub(tmp_path, monkeypatch) as server:
        monkeypatch.setenv("HF_TOKEN", "hf_write")
        server.write_token = "hf_write"
        yield server


def test_round_trip(hub: HubServer, glesam_export: Run) -> None:
    code, out, err = glesam_export("push", builtin_bundle_path(), NAME)
    assert code == 0, (err, hub.requests)
    head = hub.repos[NAME].head
    assert out == f"uploaded; run it: glesam-run --bundle {NAME}@{head}\n"
    opened = open_bundle(f"{NAME}@{head}")
    assert opened.sha256 == open_bundle().sha256
    assert head is not None
    files = hub.repos[NAME].commits[head]
    assert set(files) == {*(p.name for p in builtin_bundle_path().iterdir()), "README.md"}
    card = files["README.md"].decode()
    parity = opened.manifest.parity
    assert parity is not None
    assert card.startswith("---\nlibrary_name: glesam\n")
    assert f"glesam-run photo.jpg --points 245,300 --bundle {NAME}\n" in card
    assert f"`{opened.sha256}`" in card
    for image in parity.images:
        assert f"| {image.level} | {image.errors['encoder'].relative_l2:.2e} |" in card
    # A second push adds a commit; the revision of the first stays.
    assert glesam_export("push", NAME, NAME)[0] == 0
    assert len(hub.repos[NAME].commits) == 2


def test_refusals(hub: HubServer, glesam_export: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = builtin_bundle_path()
    for arguments, message in (
        ((bundle, "pushed"), "pushed: not the name of a repository; write ORG/NAME"),
        (("./absent", NAME), "no such bundle folder"),
    ):
        code, out, err = glesam_export("push", *arguments, "-q")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    code, _, err = glesam_export("push", bundle, NAME, "-q")
    assert (code, err.count("\n")) == (2, 1)
    assert "refuses the token, or it may not write there" in err
    assert hub.repos == {}
