"""Take a picture of a site that runs nano in the browser: make_browser_picture.py PICTURE."""

from __future__ import annotations

import io
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from make_page_picture import CHROMIUM, POINTS, SIZE, name_object, place
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from glesam_export.web_site import write_site
from glesam_runtime.bundle import open_bundle

ENGINE_FILES = Path(__file__).parents[1] / "serving/web/node_modules/onnxruntime-web/dist"
HOVERED = (395, 270)
SECONDS = 60_000


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def static_host(folder: str) -> Iterator[str]:
    """Serve a folder; yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def main(picture: Path) -> None:
    """Segment two objects of the sample with three candidates, and point at a third."""
    with tempfile.TemporaryDirectory() as folder:
        write_site(open_bundle(), Path(folder) / "site", ENGINE_FILES)
        with static_host(f"{folder}/site") as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE, reduced_motion="reduce")  # type: ignore[arg-type]
            page.goto(address)
            expect(page.locator("#bundle")).to_be_visible(timeout=SECONDS)
            page.click("#sample")
            expect(page.locator("#status")).to_contain_text("Ready: click", timeout=SECONDS)
            page.check("#multimask")
            for number, (name, point) in enumerate(POINTS.items()):
                if number:
                    page.click("#add")
                page.mouse.click(*place(page, *point))
                name_object(page, name)
            page.mouse.move(*place(page, *HOVERED))
            expect(page.locator("#times")).to_contain_text("mask under pointer", timeout=SECONDS)
            page.wait_for_timeout(2000)
            taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            browser.close()
    taken.save(picture, quality=88)
    print(f"wrote {picture}, {picture.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
