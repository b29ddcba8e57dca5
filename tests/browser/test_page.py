"""Check how pictures are opened, what errors say, and what everyone can see and reach."""

from __future__ import annotations

import base64
import io
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import expect

from glesam_runtime import read_image

from .conftest import SAMPLE, Oracle, Site, oracle_of, serving

COIN = (245, 300)
_GIVE = """([kind, type, text]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "given.jpg", { type: "image/jpeg" }));
  const event = kind === "paste"
    ? new ClipboardEvent(type, { clipboardData: data, bubbles: true })
    : new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
  document.getElementById("stage").dispatchEvent(event);
}"""


@pytest.fixture
def page_of(open_site: Callable[..., Site], server: str) -> Site:
    """Return the page without a picture."""
    site = open_site(server)
    site.page.goto(server)
    return site


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_paste_and_drop(page_of: Site, oracle: Oracle, kind: str) -> None:
    text = base64.b64encode(SAMPLE.read_bytes()).decode()
    page_of.page.evaluate(_GIVE, [kind, kind, text])
    page_of.status("Ready")
    assert "given.jpg" in (page_of.find("#stage").get_attribute("aria-label") or "")
    page_of.click(*COIN)
    np.testing.assert_array_equal(page_of.mask(), oracle.mask([[*COIN, 1]]))


def test_turned_photograph(page_of: Site, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show it upright
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    page_of.page.set_input_files("#file", path)
    page_of.status("Ready")
    size = page_of.find("#image").evaluate("(canvas) => [canvas.width, canvas.height]")
    assert size == [384, 512]
    page_of.click(100, 245)
    expected = oracle_of(read_image(path)).mask([[*page_of.points()[0][:2], 1]])
    np.testing.assert_array_equal(page_of.mask(), expected)


def test_another_picture_replaces_the_first(site: Site) -> None:
    site.click(*COIN)
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(picture, "PNG")
    file = {"name": "red.png", "mimeType": "image/png", "buffer": picture.getvalue()}
    site.page.set_input_files("#file", file)  # type: ignore[arg-type]
    site.status("Ready")
    assert not site.mask().any()
    assert site.points() == []
    expect(site.find("#undo")).to_be_disabled()


def error_of(site: Site, text: str) -> None:
    """Wait for a text in the one sentence on the page that says what is wrong."""
    expect(site.find("#error")).to_contain_text(text, timeout=20_000)
    sentence = site.find("#error").inner_text()
    assert "Traceback" not in sentence
    assert len(sentence) < 250


def test_broken_file(page_of: Site) -> None:
    file = {"name": "cut.jpg", "mimeType": "image/jpeg", "buffer": SAMPLE.read_bytes()[:100]}
    page_of.page.set_input_files("#file", file)  # type: ignore[arg-type]
    error_of(page_of, "cut.jpg: this browser cannot read the picture")
    page_of.page.click("#sample")
    page_of.status("Ready")
    expect(page_of.find("#error")).to_be_hidden()


def test_picture_beyond_the_limit(open_site: Callable[..., Site]) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (1200, 1000)).save(picture, "PNG")
    file = {"name": "large.png", "mimeType": "image/png", "buffer": picture.getvalue()}
    with serving("--max-megapixels", "1") as (url, _):
        site = open_site(url)
        site.expected = [r"status of 4(13|22)"]
        site.page.goto(url)
        site.page.set_input_files("#file", file)  # type: ignore[arg-type]
        error_of(site, "megapixel")
        site.check()


def test_full_queue_and_server_gone(open_site: Callable[..., Site], oracle: Oracle) -> None:
    with serving("--queue", "1") as (url, process):
        site = open_site(url)
        site.expected = ["status of 429", "ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|ERR_SOCKET"]
        site.open_sample()
        site.page.click("#everything")
        expect(site.find("#progress")).to_be_visible()
        site.page.mouse.click(*site.place(*COIN))
        error_of(site, "try again in")
        site.page.click("#stop")
        site.status("stopped")
        site.page.click("#reset")
        site.click(*COIN)
        np.testing.assert_array_equal(site.mask(), oracle.mask([[*COIN, 1]]))
        process.kill()
        process.wait(30)
        site.page.mouse.click(*site.place(445, 135))
        error_of(site, "does not answer; check that glesam-serve runs")


def test_dropped_image_is_sent_again(site: Site, server: str, oracle: Oracle) -> None:
    site.expected = ["status of 404"]
    with site.page.expect_response("**/segment") as waiting:
        site.page.mouse.click(*site.place(*COIN))
    address = waiting.value.url.removesuffix("/segment")
    urllib.request.urlopen(urllib.request.Request(address, method="DELETE")).close()
    with site.page.expect_response(lambda answer: "segment" in answer.url and answer.ok):
        site.page.mouse.click(*site.place(290, 355), button="right")
    expected = oracle.mask([[*COIN, 1], [290, 355, 0]])
    expect(site.find("#figures")).to_contain_text(f"{expected.sum():,}")
    np.testing.assert_array_equal(site.mask(), expected)
    expect(site.find("#error")).to_be_hidden()


def test_api_key(open_site: Callable[..., Site]) -> None:
    with serving("--api-key", "a secret") as (url, _):
        site = open_site(url)
        site.expected = ["status of 401"]
        site.page.goto(url)
        dialog = site.find("#key-dialog")
        for key in ("wrong", "a secret"):
            expect(dialog).to_be_visible()
            expect(site.find("#key")).to_be_focused()
            site.page.fill("#key", key)
            site.page.keyboard.press("Enter")
            if key == "wrong":
                expect(site.find("#key")).to_have_value("")
        expect(dialog).to_be_hidden()
        expect(site.find("#bundle")).to_contain_text("nano")
        site.page.reload()  # the key is kept for this tab
        expect(site.find("#bundle")).to_contain_text("nano")
        assert "secret" not in site.page.url
        site.page.evaluate("sessionStorage.clear()")
        site.page.reload()
        expect(dialog).to_be_visible()
        site.page.keyboard.press("Escape")
        error_of(site, "requires a key")
        site.check()


def test_page_without_enhancer(open_site: Callable[..., Site], oracle: Oracle) -> None:
    with serving("--no-enhance") as (url, _):
        site = open_site(url)
        site.open_sample()
        expect(site.find("#compare-bar")).to_be_hidden()
        site.click(*COIN)
        np.testing.assert_array_equal(site.mask(), oracle.mask([[*COIN, 1]], enhance=False))
        site.check()


def test_roles_labels_and_focus(site: Site) -> None:
    """Check the names that a screen reader says, and that each control shows its focus."""
    expect(site.page.get_by_role("status")).to_have_text("Ready: click an object.")
    expect(site.page.get_by_role("application")).to_have_accessible_name(
        "sample.jpg, 512 by 384 pixels"
    )
    expect(site.page.get_by_role("listbox", name="Objects of the picture")).to_be_visible()
    for role in ("button", "radio", "checkbox", "slider", "textbox"):
        for control in site.page.get_by_role(role).all():
            assert control.evaluate(
                "(one) => Boolean(one.textContent || one.ariaLabel || one.labels?.length)"
            )
    site.click(*COIN)
    seen = set()
    for _ in range(40):
        site.page.keyboard.press("Tab")
        seen.add(
            site.page.evaluate(
                """() => {
                  const one = document.activeElement;
                  const shown = one.name === "mode" ? one.nextElementSibling : one;
                  const isOutlined = getComputedStyle(shown).outlineStyle !== "none";
                  return [one.id || one.tagName, isOutlined].join();
                }"""
            )
        )
    wanted = {
        "open",
        "sample",
        "undo",
        "reset",
        "stage",
        "compare",
        "level",
        "list",
        "add",
        "remove",
    }
    wanted |= {"everything", "name", "multimask", "save-mask", "save-overlay", "save-coco"}
    assert {f"{name},true" for name in wanted} <= seen
    assert not any(each.endswith("false") and not each.startswith("BODY") for each in seen)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(open_site: Callable[..., Site], server: str, scheme: str) -> None:
    """Check texts against their grounds: 4.5 to 1, as WCAG 2.2 AA requires."""
    site = open_site(server, color_scheme=scheme, reduced_motion="reduce")
    site.page.goto(server)
    pairs = [
        ("--ink", "--paper"),
        ("--faint", "--paper"),
        ("--faint", "--panel"),
        ("--accent", "--wash"),
        ("--on-accent", "--accent"),
        ("--fault", "--fault-wash"),
    ]
    for ink, ground in pairs:
        colours = site.page.evaluate(
            """(names) => names.map((name) => {
              const probe = document.body.appendChild(document.createElement("i"));
              probe.style.color = `var(${name})`;
              const colour = getComputedStyle(probe).color;
              probe.remove();
              return colour.match(/[0-9.]+/g).slice(0, 3).map(Number);
            })""",
            [ink, ground],
        )
        levels = np.array(colours) / 255
        linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
        low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)
    duration = site.find("#open").evaluate("(one) => getComputedStyle(one).transitionDuration")
    assert duration == "0s"
