"""Check the golden self-test of other bundles than the built-in one in Chromium.

PyTorch exports these bundles, and the environment of these tests does not have it, so the make
target exports them before. The self-test has the limits of each bundle's own precision.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from glesam_export.web_site import write_site
from glesam_runtime.bundle import open_bundle

from .conftest import Site
from .web_site import ENGINE_FILES, static_host

BUNDLES = Path(__file__).parents[2] / "out/browser-bundles"
LOADING = 120_000  # milliseconds on a busy machine


@pytest.mark.parametrize("name", ["nano2", "nano-fp16", "nano-int8"])
def test_bundle_passes_its_self_test(
    open_site: Callable[..., Site], tmp_path: Path, name: str
) -> None:
    if not (BUNDLES / name / "manifest.json").exists():
        pytest.skip(f"not run: {BUNDLES / name} is missing; make test-browser exports it")
    bundle = open_bundle(BUNDLES / name)
    write_site(bundle, tmp_path / "site", ENGINE_FILES)
    precision = bundle.manifest.stages["encoder"].precision
    with static_host(tmp_path / "site") as url:
        site = open_site(url)
        site.page.goto(url)
        expect(site.find("#engine")).to_contain_text(f"encoder {precision}", timeout=LOADING)
        site.page.click("#sample")
        site.status("Ready: click", LOADING / 1000)
        site.page.click("#selftest")
        expect(site.find("#status")).to_contain_text("The self-test passed", timeout=LOADING)
        print(f"{name}: {site.find('#status').inner_text()}")
        site.check()
