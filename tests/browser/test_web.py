"""Check the site that runs the model in the browser: masks, faults, and no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect
from pycocotools import mask as coco

from glesam_export.web_site import write_site
from glesam_runtime import GleSamPredictor, read_image
from glesam_runtime.bundle import open_bundle
from glesam_runtime.image import preprocess

from .conftest import CHROMIUM, SAMPLE, Oracle, Site, serving
from .web_site import ENGINE_FILES, PREDICT, Faults, static_host, without_service_worker

COIN, OTHER = (245, 300), (445, 135)
OPEN = 60  # seconds that loading the model may take on a busy machine
BUNDLE = "bundle/"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site of nano."""
    output = tmp_path_factory.mktemp("web") / "site"
    write_site(open_bundle(), output, ENGINE_FILES)
    return output


@pytest.fixture(scope="session")
def host(folder: Path) -> Iterator[str]:
    """Return the address of a static host without faults."""
    with static_host(folder) as url:
        yield url


def opened(site: Site) -> Site:
    """Open the page, and wait until it has loaded the model."""
    site.page.goto(site.url)
    expect(site.find("#bundle")).to_be_visible(timeout=OPEN * 1000)
    return site


def click(site: Site, x: int, y: int) -> None:
    """Click a pixel and wait for the mask."""
    site.page.mouse.click(*site.place(x, y))
    site.status("pixels", OPEN)
    site.page.mouse.move(0, 0)  # so that no preview covers the mask


def sentence(site: Site, text: str) -> None:
    """Wait for a text in the sentence that says what is wrong."""
    expect(site.find("#error")).to_contain_text(text, timeout=OPEN * 1000)
    assert len(site.find("#error").inner_text()) < 300


def test_static_site_segments_and_works_offline(
    open_site: Callable[..., Site], folder: Path, oracle: Oracle
) -> None:
    with static_host(folder) as url:
        site = opened(open_site(url))
        assert site.page.evaluate("crossOriginIsolated")
        expect(site.find("#engine")).to_contain_text("All in the browser: onnxruntime-web")
        expect(site.find("#engine")).to_contain_text("encoder fp32")
        site.page.click("#sample")
        site.status("Ready: click", OPEN)
        site.page.click("#selftest")
        site.status("The self-test passed", OPEN)
    # The host is gone: the second visit works without it.
    opened(site)
    site.page.click("#sample")
    site.status("Ready: click", OPEN)
    click(site, *COIN)
    expected = oracle.mask([[*COIN, 1]])
    drawn = site.mask()
    assert (drawn & expected).sum() / (drawn | expected).sum() >= 0.999


def test_hundred_images_are_the_predictors(open_site: Callable[..., Site], host: str) -> None:
    """Any size and prompt: the encoder's input has the same bits and the masks are the same."""
    rng = np.random.default_rng(0)
    predictor = GleSamPredictor(backend="onnxruntime")
    cases, expected = [], []
    for index in range(100):
        height, width = (int(side) for side in rng.integers(1, 420, 2))
        scene = rng.integers(0, 256, (4, 4, 3)).repeat(110, 0).repeat(110, 1)[:height, :width]
        image = (scene + rng.integers(-20, 20, scene.shape)).clip(0, 255).astype(np.uint8)
        corners = np.sort(rng.uniform(0, 1, (2, 2)), axis=0) * [width, height]
        prompt: dict[str, Any] = {"multimask_output": bool(index % 2)}
        if index % 3:
            count = int(rng.integers(1, 4))
            prompt["point_coords"] = (rng.uniform(0, 1, (count, 2)) * [width, height]).tolist()
            prompt["point_labels"] = [1, 0, 1][:count]
        if index % 3 != 1:
            prompt["box"] = corners.ravel().tolist()
        pixels = base64.b64encode(image.tobytes()).decode()
        cases.append({"pixels": pixels, "width": width, "height": height, "prompt": prompt})
        predictor.set_image(image)
        masks, scores, _ = predictor.predict(**prompt)
        tensor = preprocess(image, predictor.bundle.manifest.preprocessing).tensor
        expected.append((hashlib.sha256(tensor.tobytes()).hexdigest(), masks, scores))
    site = opened(open_site(host))
    found = site.page.evaluate(PREDICT, cases)
    for (digest, masks, scores), answer in zip(expected, found, strict=True):
        assert answer["tensor"] == digest
        np.testing.assert_allclose(answer["scores"], scores, atol=1e-4)
        for mask, rle in zip(masks, answer["rles"][0], strict=True):
            made = coco.decode({**rle, "counts": rle["counts"].encode()}).astype(bool)
            union = (made | mask).sum()
            assert union == 0 or (made & mask).sum() / union >= 0.9999 or (made ^ mask).sum() <= 1
            if (made == mask).all():
                whole = coco.encode(np.asfortranarray(mask, np.uint8))
                assert rle["counts"] == whole["counts"].decode()


def test_three_ways_give_one_mask(
    open_site: Callable[..., Site], folder: Path, oracle: Oracle
) -> None:
    with serving("--page", str(folder)) as (url, _):
        site = opened(open_site(url))
        site.page.click("#sample")
        site.status("Ready: click", OPEN)
        expected = oracle.mask([[*COIN, 1]])
        for way, words in (
            ("browser", "All in the browser"),
            ("split", "encoder by onnxruntime on the server"),
            ("server", "All on the server"),
        ):
            site.page.select_option("#way", way)
            expect(site.find("#engine")).to_contain_text(words, timeout=OPEN * 1000)
            site.status("Ready: click", OPEN)
            click(site, *COIN)
            drawn = site.mask()
            assert (drawn & expected).sum() / (drawn | expected).sum() >= 0.999
        site.check()


_COUNT_SEGMENTS = """
window.segments = 0;
const post = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message, ...rest) {
  if (JSON.stringify(message).includes('"segment"')) window.segments += 1;
  return post.call(this, message, ...rest);
};
"""


def test_mask_under_the_pointer(open_site: Callable[..., Site], folder: Path) -> None:
    with serving("--page", str(folder)) as (url, _):
        site = open_site(url)
        site.page.add_init_script(_COUNT_SEGMENTS)
        opened(site)
        site.page.select_option("#way", "split")
        expect(site.find("#engine")).to_contain_text("on the server", timeout=OPEN * 1000)
        site.page.click("#sample")
        site.status("Ready: click", OPEN)
        site.page.mouse.move(*site.place(*OTHER))
        expect(site.find("#times")).to_contain_text("mask under pointer", timeout=OPEN * 1000)
        expected = GleSamPredictor(backend="onnxruntime")
        expected.set_image(read_image(SAMPLE))
        masks, _, _ = expected.predict([OTHER], [1], multimask_output=False)
        drawn = site.mask()
        assert (drawn & masks[0]).sum() / (drawn | masks[0]).sum() >= 0.999
        assert site.points() == []
        site.page.mouse.move(0, 0)
        assert not site.mask().any()
        # A click on the mask under the pointer does not run the decoder again.
        site.page.evaluate("window.segments = 0")
        click(site, *OTHER)
        again = site.mask()
        assert (again & drawn).sum() / (again | drawn).sum() >= 0.999
        assert site.page.evaluate("window.segments") == 0
        site.check()


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def with_version(content: bytes, version: int) -> bytes:
    return json.dumps({**json.loads(content), "version": version}).encode()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("encoder.onnx", flipped, "encoder.onnx: altered, its sha256 is not the manifest's"),
        ("decoder.onnx", lambda raw: raw + b"0", "decoder.onnx: more bytes, the manifest says"),
        ("decoder.onnx", None, "decoder.onnx: missing from the bundle"),
        ("manifest.json", lambda raw: with_version(raw, 2), "manifest version 2"),
        ("manifest.json", lambda raw: b"<html>", "not a bundle manifest"),
    ],
)
def test_bundle_that_is_wrong(
    open_site: Callable[..., Site],
    folder: Path,
    tmp_path: Path,
    name: str,
    change: Callable[[bytes], bytes] | None,
    words: str,
) -> None:
    faults = Faults()
    if change is None:
        faults.missing.add(f"/{BUNDLE}{name}")
    else:
        faults.replaced[f"/{BUNDLE}{name}"] = change((folder / BUNDLE / name).read_bytes())
    copied = without_service_worker(folder, tmp_path / "site")
    with static_host(copied, faults) as url:
        site = open_site(url)
        site.expected = ["status of 404"]
        site.page.goto(url)
        sentence(site, words)
        expect(site.find("#open")).to_be_visible()
        site.check()


def test_download_that_breaks_off_goes_on(open_site: Callable[..., Site], folder: Path) -> None:
    faults = Faults(cut={f"/{BUNDLE}encoder.onnx": 1_000_000})
    with static_host(folder, faults) as url:
        site = open_site(url)
        site.expected = ["ERR_CONTENT_LENGTH_MISMATCH"]
        opened(site)
        expect(site.find("#error")).to_be_hidden()
    assert len(faults.ranges) == 1
    assert 0 < int(faults.ranges[0].removeprefix("bytes=").rstrip("-")) <= 1_000_000


def test_browser_without_isolation_uses_one_thread(
    open_site: Callable[..., Site], folder: Path, tmp_path: Path
) -> None:
    with static_host(without_service_worker(folder, tmp_path / "site")) as url:
        site = opened(open_site(url))
        assert not site.page.evaluate("crossOriginIsolated")
        assert site.page.evaluate("typeof SharedArrayBuffer") == "undefined"
        expect(site.find("#engine")).to_contain_text("this browser, 1 thread")
        site.page.click("#sample")
        site.status("Ready: click", OPEN)
        click(site, *COIN)
        site.check()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("WebAssembly.validate = () => false;", "no WebAssembly SIMD"),
        ("delete self.WebAssembly;", "no WebAssembly SIMD"),
        (
            "self.Uint8Array = class extends Uint8Array { constructor(...all) {"
            " if (all[0] > 1e6) throw new RangeError('Array buffer allocation failed');"
            " super(...all); } };",
            "has no memory for",
        ),
        (
            "Object.defineProperty(crypto, 'subtle', { value: undefined });",
            "on https pages and on localhost only",
        ),
    ],
)
def test_browser_that_lacks_something(
    open_site: Callable[..., Site], folder: Path, tmp_path: Path, script: str, words: str
) -> None:
    copied = without_service_worker(folder, tmp_path / "site")
    worker = copied / "glesam" / "worker.js"
    (copied / "glesam" / "lacks.js").write_text(script)
    worker.write_text('import "./lacks.js";\n' + worker.read_text())
    with static_host(copied) as url:
        site = open_site(url)
        site.page.goto(url)
        sentence(site, words)
        site.check()


def test_page_of_the_documentation(
    open_site: Callable[..., Site], folder: Path, tmp_path: Path, oracle: Oracle
) -> None:
    text = (Path(__file__).parents[2] / "docs/browser.md").read_text()
    copied = without_service_worker(folder, tmp_path / "site")
    (copied / "own.html").write_text(text.split("```html\n")[1].split("```")[0])
    with static_host(copied) as url:
        site = open_site(url)
        site.expected = ["favicon.ico"]
        site.page.goto(url + "own.html")
        site.status("Choose a picture", OPEN)
        site.page.set_input_files("#file", SAMPLE)
        site.status("Click an object", OPEN)
        site.page.click("#canvas", position={"x": COIN[0], "y": COIN[1]})
        site.status("pixels", OPEN)
        area = int(site.find("#status").inner_text().split()[0])
        assert abs(area / oracle.mask([[*COIN, 1]]).sum() - 1) <= 0.001
        site.check()


def test_webgpu_passes_the_self_test(chromium: Any, tmp_path: Path) -> None:
    """SwiftShader stands in for a GPU. The page uses WebGPU after a self-test only."""
    write_site(open_bundle(), tmp_path / "site", ENGINE_FILES, webgpu=True)
    flags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--no-sandbox"]
    vulkan = ["--enable-features=Vulkan", "--use-vulkan=swiftshader", "--use-angle=swiftshader"]
    browser = chromium.browser_type.launch(executable_path=CHROMIUM, args=[*flags, *vulkan])
    with static_host(tmp_path / "site") as url:
        page = browser.new_page()
        page.goto(f"{url}none")  # the page itself may be reloading when it is asked
        if not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean) ?? false"):
            browser.close()
            pytest.skip("not run: SwiftShader does not start")
        page.goto(f"{url}?engine=webgpu")
        expect(page.locator("#engine")).to_contain_text("WebGPU in this browser", timeout=180_000)
        assert page.locator("#error").inner_text() == ""
    browser.close()


def test_site_of_a_large_bundle_needs_a_server(
    open_site: Callable[..., Site], tmp_path: Path
) -> None:
    made = write_site(open_bundle(), tmp_path / "site", ENGINE_FILES, max_mb=10)
    assert made.stages == ("decoder",)
    assert not (tmp_path / "site" / BUNDLE / "encoder.onnx").exists()
    with static_host(tmp_path / "site") as url:
        site = open_site(url)
        site.page.goto(url)
        sentence(site, "holds the decoder only")
        sentence(site, "glesam-serve --page")
        site.check()
    with serving("--page", str(tmp_path / "site")) as (url, _):
        site = opened(open_site(url))
        expect(site.find("#engine")).to_contain_text("on the server")
        site.check()
