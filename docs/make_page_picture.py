"""Take a picture of the server's page in use: make_page_picture.py PICTURE."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
SIZE = {"width": 1240, "height": 850}
POINTS = {"stripes": (245, 300), "yellow": (445, 135), "red": (150, 42)}
BOX = ((350, 213), (441, 323))
LEVEL = "1"


@contextmanager
def server() -> Iterator[str]:
    """Run a server; yield its address."""
    code = "from glesam_serving.cli import main; main()"
    command = [sys.executable, "-c", code, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main(picture: Path) -> None:
    """Segment objects of the degraded sample, compare with plain SAM, and save what is seen."""
    with server() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, reduced_motion="reduce")  # type: ignore[arg-type]
        page.goto(address)
        page.click("#sample")
        expect(page.locator("#status")).to_contain_text("Ready")
        page.mouse.move(*place(page, *BOX[0]))
        page.mouse.down()
        page.mouse.move(*place(page, *BOX[1]), steps=4)
        page.mouse.up()
        name_object(page, "grey")
        for name, point in POINTS.items():
            page.click("#add")
            page.mouse.click(*place(page, *point))
            name_object(page, name)
        page.fill("#level", LEVEL)
        expect(page.locator("#status")).to_contain_text(f"LQ-{LEVEL}.")
        expect(page.locator("#figures")).to_contain_text("IoU with clear")
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
        taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        browser.close()
    taken.save(picture, quality=88)
    print(f"wrote {picture}, {picture.stat().st_size // 1024} KB")


def name_object(page: Page, name: str) -> None:
    """Wait for the mask of the current object and name the object."""
    expect(page.locator("#status")).to_contain_text("pixels")
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.locator("#stage").focus()


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Return the position on the screen of a pixel of the sample."""
    frame = page.locator("#image").bounding_box()
    assert frame is not None
    width, height = page.locator("#image").evaluate("(canvas) => [canvas.width, canvas.height]")
    return (
        frame["x"] + (x + 0.5) * frame["width"] / width,
        frame["y"] + (y + 0.5) * frame["height"] / height,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
