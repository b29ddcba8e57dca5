"""Images and bundles come from addresses, with credentials, and to nodes that lack them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from glesam_runtime import open_bundle
from glesam_runtime.bundle import builtin_bundle_path
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.errors import BundleError, InputError

pytest.importorskip("ray")

from glesam_serving.batch import bundles, stages
from glesam_serving.batch.job import Job
from glesam_serving.batch.plan import Plan
from glesam_serving.batch.rows import Row


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if "secret" in self.path:
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(pictures: Path) -> Iterator[str]:
    """Yield the address of a server of the pictures, whose /secret is forbidden."""
    handler = partial(Handler, directory=str(pictures.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_image_from_an_address(site: str, pictures: Path) -> None:
    content = stages._content(Row("p", f"{site}/p00000.png"))
    assert content == (pictures.parent / "p00000.png").read_bytes()


@pytest.mark.parametrize(
    ("path", "reason"), [("secret.png", "403"), ("missing.png", "FileNotFoundError")]
)
def test_an_address_that_refuses_is_one_line(site: str, path: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"cannot be fetched .*{reason}") as raised:
        stages._content(Row("p", f"{site}/{path}"))
    assert "credentials" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    # Whoever asks a server in spite of that gets no answer.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")


@pytest.mark.usefixtures("no_credentials")
def test_s3_without_credentials_is_one_line() -> None:
    with pytest.raises(InputError, match=r"cannot be fetched .*credentials") as raised:
        stages._content(Row("p", "s3://bucket/p.png"))
    assert "NoCredentialsError" in str(raised.value)
    with pytest.raises(BundleError, match=r"NoCredentialsError.*check the address and"):
        bundles.open_any("s3://bucket/bundle")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give this process a cache of bundles of its own, and hide the built-in bundle."""
    monkeypatch.setenv("GLESAM_BUNDLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundles, "builtin_bundle_path", lambda: tmp_path / "none")
    return tmp_path / "cache"


def test_a_node_without_the_bundle_keeps_and_verifies_it(cache: Path, tmp_path: Path) -> None:
    bundle = open_bundle(builtin_bundle_path())
    files = bundles.pack(bundle)
    assert bundles.find(bundle.sha256, tmp_path / "none") is None
    altered = {**files, "encoder.onnx": files["encoder.onnx"][:-1] + b"?"}
    with pytest.raises(BundleError, match=r"encoder.onnx"):
        bundles.keep(altered)
    assert bundles.find(bundle.sha256, tmp_path / "none") is None
    assert list(cache.glob("*")) == []
    assert bundles.keep(files).path == cache / bundle.sha256
    found = bundles.find(bundle.sha256, tmp_path / "none")
    assert found is not None
    assert found.path == cache / bundle.sha256


@pytest.mark.usefixtures("cache")
def test_a_node_that_cannot_get_the_bundle_says_so(tmp_path: Path) -> None:
    """On one node the files are not sent; then the folder was removed while the job ran."""
    from glesam_serving.batch.pipeline import _Shared

    bundle = open_bundle(builtin_bundle_path())
    job = Job(
        inputs=("a.png",),
        recursive=False,
        root=None,
        bundle=bundle.sha256,
        backend="auto",
        device="cpu",
        precision=None,
        enhance=True,
        multimask=False,
        depth="auto",
        prompts=({"box": [1, 2, 3, 4]},),
        everything=None,
        masks="rle",
        batch_size=1,
        limit=None,
    )
    setup = stages.Setup(tmp_path / "out", job, Plan(tmp_path / "plan"), bundle.manifest)
    with pytest.raises(BundleError, match=r"none: changed while the job ran; start the job again"):
        _Shared(setup, tmp_path / "none", {}, EngineOptions()).predictors()
