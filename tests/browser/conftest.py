"""Start a server and a browser, and watch everything that the page asks for and reports."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from glesam_runtime import GleSamPredictor, read_image

# These tests have an environment of their own (make test-browser).
collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]

SAMPLE = Path(str(files("glesam_runtime") / "sample" / "sample.jpg"))
CHROMIUM = "/usr/bin/chromium"
_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
_MASK = """() => {
  const canvas = document.getElementById("masks");
  // Chromium warns of readbacks from a canvas that was not made for them.
  const empty = new OffscreenCanvas(canvas.width, canvas.height);
  const copy = empty.getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (let at = 3; at < data.length; at += 4) text += data[at] ? "1" : "0";
  return [canvas.height, canvas.width, text];
}"""
_POINTS = """() => [...document.querySelectorAll("#marks circle")].map((circle) => [
  circle.cx.baseVal.value - 0.5, circle.cy.baseVal.value - 0.5,
  Number(circle.matches(".object"))])"""


@contextmanager
def serving(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a server process; yield its address."""
    code = "from glesam_serving.cli import main; main()"
    command = [sys.executable, "-c", code, "--port", "0", "--backend", "onnxruntime", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Return the address of a server that most tests share."""
    with serving() as (url, _):
        yield url


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Return a browser, Debian's: Playwright's own is not downloaded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Site:
    """The page in a browser, and what was seen of it."""

    page: Any
    url: str
    problems: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Patterns of messages that the test provokes."""

    def watch(self) -> None:
        def console(message: Any) -> None:
            if message.type in ("error", "warning"):
                self.problems.append(f"console: {message.text} {message.location.get('url')}")

        def request(sent: Any) -> None:
            address = urlsplit(sent.url)
            if address.scheme != "blob" and address.netloc != urlsplit(self.url).netloc:
                self.problems.append(f"request to another host: {sent.url}")

        self.page.on("console", console)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.context.on("request", request)
        self.page.add_init_script(_VIOLATIONS)

    def check(self) -> None:
        """Check that nothing unexpected was reported."""
        self.problems += [f"CSP: {each}" for each in self.page.evaluate("window.violations ?? []")]
        left = [
            problem
            for problem in self.problems
            if not any(re.search(each, problem) for each in self.expected)
        ]
        assert left == []

    def find(self, selector: str) -> Any:
        return self.page.locator(selector)

    def status(self, text: str, timeout: float = 15) -> None:
        """Wait for a status that contains a text."""
        from playwright.sync_api import expect

        expect(self.find("#status")).to_contain_text(text, timeout=timeout * 1000)

    def open_sample(self) -> None:
        self.page.goto(self.url)
        self.page.click("#sample")
        self.status("Ready")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the whole screen position that is in pixel (x, y) of the picture."""
        image = self.find("#image")
        image.scroll_into_view_if_needed()
        frame = image.bounding_box()
        width, height = image.evaluate("(canvas) => [canvas.width, canvas.height]")
        places = (
            frame["x"] + (x + 0.5) * frame["width"] / width,
            frame["y"] + (y + 0.5) * frame["height"] / height,
        )
        return round(places[0]), round(places[1])

    def click(self, x: float, y: float, **options: Any) -> None:
        """Click a pixel of the picture and wait for the answer."""
        with self.page.expect_response("**/segment"):
            self.page.mouse.click(*self.place(x, y), **options)
        self.status("pixels")

    def drag(self, start: tuple[int, int], stop: tuple[int, int]) -> None:
        """Drag over the picture and wait for the answer."""
        with self.page.expect_response("**/segment"):
            self.page.mouse.move(*self.place(*start))
            self.page.mouse.down()
            self.page.mouse.move(*self.place(*stop), steps=4)
            self.page.mouse.up()
        self.status("pixels")

    def mask(self) -> NDArray[np.bool_]:
        """Return the pixels of the picture that the page draws a mask on, bool [H, W]."""
        height, width, text = self.page.evaluate(_MASK)
        return (np.frombuffer(text.encode(), np.uint8) == ord("1")).reshape(height, width)

    def points(self) -> list[list[int]]:
        """Return the drawn points of the current object: x, y, label."""
        return [[round(value) for value in point] for point in self.page.evaluate(_POINTS)]

    def figure(self, name: str) -> list[str]:
        """Return a row of the table of figures."""
        row = self.find("#figures tbody tr").filter(has_text=name)
        return row.locator("td").all_inner_texts()


@pytest.fixture
def open_site(chromium: Any) -> Iterator[Callable[..., Site]]:
    """Return a function that opens pages; all are checked at the end of the test."""
    sites = []

    def make(url: str, **options: Any) -> Site:
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        context = chromium.new_context(**options)
        site = Site(context.new_page(), url)
        site.watch()
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.check()
        site.page.context.close()


@pytest.fixture
def site(open_site: Callable[..., Site], server: str) -> Site:
    """Return the page with the sample open."""
    opened = open_site(server)
    opened.open_sample()
    return opened


@dataclass(frozen=True)
class Oracle:
    """Predictors that hold the sample: what the page's masks are compared with."""

    enhanced: GleSamPredictor
    plain: GleSamPredictor

    def mask(
        self,
        points: list[list[int]] | None = None,
        box: list[int] | None = None,
        *,
        enhance: bool = True,
    ) -> NDArray[np.bool_]:
        """Return the mask of x, y, label points and a box, bool [H, W]."""
        predictor = self.enhanced if enhance else self.plain
        rows = None if points is None else np.array(points, float)
        masks, _, _ = predictor.predict(
            None if rows is None else rows[:, :2],
            None if rows is None else rows[:, 2],
            box,
            multimask_output=False,
        )
        return masks[0].astype(bool)


def oracle_of(pixels: NDArray[np.uint8]) -> Oracle:
    """Return predictors that hold a picture."""
    made = [GleSamPredictor(backend="onnxruntime", enhance=enhance) for enhance in (True, False)]
    for predictor in made:
        predictor.set_image(pixels)
    return Oracle(*made)


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint8]:
    """Return the sample, uint8 [H, W, 3]."""
    return read_image(SAMPLE)


@pytest.fixture(scope="session")
def oracle(pixels: NDArray[np.uint8]) -> Oracle:
    """Return predictors that hold the sample."""
    return oracle_of(pixels)
