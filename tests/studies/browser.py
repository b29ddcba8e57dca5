"""Measure the model in the browser beside glesam-serve and glesam-run, in one run.

`make bench-browser` prints the figures of docs/browser.md. An argument is the folder of a bundle:
its decoder then runs in the browser behind a server that encodes, and only clicks and the mask
under the pointer are measured. All commands run in turns, because other programs share the CPU.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import expect, sync_playwright
from tests.browser.web_site import ENGINE_FILES, static_host, without_service_worker
from tests.studies.processes import MemoryWatch, chromium_process, glesam_serve, peak_memory

from glesam_export.web_site import write_site
from glesam_runtime.bundle import Bundle, open_bundle

CHROMIUM = "/usr/bin/chromium"
SAMPLE = Path(str(files("glesam_runtime") / "sample" / "sample.jpg"))
COIN = (245, 300)
BACKEND = ("--backend", "onnxruntime")
RUN = "from glesam_runtime.cli import main; main()"
ROUNDS, CLICKS, MOVING = 2, 6, 15
"""Rounds of each cold start, clicks on an open picture, seconds for which the pointer moves."""
LONGEST = 600_000
"""Milliseconds that a step may take."""

_MOVE = """async (seconds) => {
  const stage = document.getElementById("stage"), image = document.getElementById("image");
  const frame = () => new Promise((done) => requestAnimationFrame(() => done(performance.now())));
  let masks = 0, frames = 0, worst = 0;
  const observer = new MutationObserver(() => { masks += 1; });
  observer.observe(document.querySelector("#times tbody"), { childList: true });
  const start = await frame();
  for (let last = start; last - start < 1000 * seconds; frames += 1) {
    const now = await frame();
    worst = Math.max(worst, now - last);
    last = now;
    const { left, top, width, height } = image.getBoundingClientRect();
    const angle = (now - start) / 500;
    const clientX = left + width * (0.5 + 0.3 * Math.cos(angle));
    const clientY = top + height * (0.5 + 0.3 * Math.sin(angle));
    const how = { clientX, clientY, bubbles: true, pointerType: "mouse" };
    stage.dispatchEvent(new PointerEvent("pointermove", how));
  }
  observer.disconnect();
  const took = (performance.now() - start) / 1000;
  return { masks: masks / took, frames: frames / took, worst };
}"""
"""Moves the pointer in a circle, once a frame; returns masks and frames per second, and the longest
frame in milliseconds. The page replaces the rows of its times with each mask that it shows."""


def main() -> None:
    """Print the figures."""
    bundle = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder, opened = Path(temporary), open_bundle(bundle)
        print(f"{opened.manifest.model.preset}, {os.cpu_count()} cores")
        chromium = playwright.chromium
        with browser_of(chromium) as browser:
            if bundle is None:
                _beside_others(browser, folder)
                _memory(chromium, folder)
            else:
                _large(browser, opened, folder)


@contextmanager
def browser_of(chromium: Any) -> Iterator[Any]:
    """Run Debian's Chromium; Playwright's own browsers are not downloaded."""
    browser = chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    yield browser
    browser.close()


def _beside_others(browser: Any, folder: Path) -> None:
    """Measure cold starts in turns, then encoding, clicks and the mask under the pointer."""
    made = write_site(open_bundle(), folder / "site", ENGINE_FILES)
    print(f"site of nano: {made.bytes / 1e6:.1f} MB")
    single = without_service_worker(folder / "site", folder / "single")
    with ExitStack() as stack:
        hosts = {
            "threads": stack.enter_context(static_host(folder / "site")),
            "1 thread": stack.enter_context(static_host(single)),
        }
        cold: dict[str, list[float]] = defaultdict(list)
        figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in hosts}
        for _ in range(ROUNDS):
            cold["glesam-run, process to mask file"].append(_seconds(lambda: _run(folder)))
            cold["glesam-serve, process to mask of the first click"].append(_seconds(_serve))
            for name, address in hosts.items():
                with _context(browser) as page:
                    seconds = _seconds(lambda p=page, a=address: _first_mask(p, a))
                    cold[f"browser, {name}, page opened to first mask"].append(seconds)
                    _collect(page, figures[name])
                    page.goto("about:blank")
                    seconds = _seconds(lambda p=page, a=address: _first_mask(p, a))
                    cold[f"browser, {name}, the same on the second visit"].append(seconds)
        for label, values in cold.items():
            shown = ", ".join(f"{value:.2f}" for value in values)
            print(f"{label:52s} median {statistics.median(values):.2f} s ({shown})")
        for name, rows in figures.items():
            _print_rows(f"browser, {name}", rows)


def _memory(chromium: Any, folder: Path) -> None:
    """Print the peak memory of each, with a browser of its own."""
    with static_host(folder / "site") as address, browser_of(chromium) as browser:
        with MemoryWatch(chromium_process()) as empty, _context(browser) as page:
            page.goto("about:blank")
            page.wait_for_timeout(1000)
        with MemoryWatch(chromium_process()) as first, _context(browser) as page:
            _first_mask(page, address)
    print(
        f"peak memory of the browser's processes: {first.peak >> 20} MiB until the first mask, "
        f"{empty.peak >> 20} MiB with an empty page (shared pages counted once)"
    )
    with glesam_serve(*BACKEND) as server:
        _click_server(server.url)
        print(f"peak memory of glesam-serve: {peak_memory(server.process.pid) >> 20} MiB")
    print(f"peak memory of glesam-run: {_run(folder) >> 20} MiB")


def _large(browser: Any, bundle: Bundle, folder: Path) -> None:
    """Measure the decoder in the browser behind a server that encodes."""
    made = write_site(bundle, folder / "site", ENGINE_FILES, max_mb=64)
    print(f"site with the decoder only: {made.bytes / 1e6:.1f} MB")
    with (
        glesam_serve(
            str(bundle.path), "--page", str(folder / "site"), "--timeout", "600", *BACKEND
        ) as server,
        _context(browser) as page,
        MemoryWatch(chromium_process()) as watch,
    ):
        seconds = _seconds(lambda: _first_mask(page, server.url))
        print(f"page opened to first mask: {seconds:.1f} s")
        rows: dict[str, list[float]] = defaultdict(list)
        _collect(page, rows)
        _print_rows("decoder in the browser", rows)
        print(page.locator("#engine").inner_text())
    print(f"peak memory of the browser's processes: {watch.peak >> 20} MiB")


@contextmanager
def _context(browser: Any) -> Iterator[Any]:
    """Open a page with an empty cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(LONGEST)
    yield context.new_page()
    context.close()


def _first_mask(page: Any, address: str) -> None:
    """Open the page, open the sample and click an object, as a visitor does."""
    page.goto(address)
    expect(page.locator("#bundle")).to_be_visible(timeout=LONGEST)
    page.click("#sample")
    expect(page.locator("#status")).to_contain_text("Ready: click", timeout=LONGEST)
    _click(page, *COIN)


def _click(page: Any, x: float, y: float) -> None:
    """Click a pixel of the picture and wait for its mask."""
    page.evaluate("document.getElementById('status').textContent = ''")
    frame = page.locator("#image").bounding_box()
    width, height = page.evaluate(
        "(({ width, height }) => [width, height])(document.getElementById('image'))"
    )
    page.mouse.click(
        frame["x"] + (x + 0.5) * frame["width"] / width,
        frame["y"] + (y + 0.5) * frame["height"] / height,
    )
    expect(page.locator("#status")).to_contain_text("pixels", timeout=LONGEST)


def _collect(page: Any, rows: dict[str, list[float]]) -> None:
    """Add what the page says of its stages, of clicks, and of the mask under the pointer."""
    for name, milliseconds in _times(page).items():
        rows[f"first: {name}"].append(milliseconds)
    for number in range(CLICKS):
        page.click("#reset")
        _click(page, COIN[0] + 1 + number, COIN[1])  # the page remembers answers to old prompts
        for name, milliseconds in _times(page).items():
            if name in ("decoder", "mask at full size", "click to mask"):
                rows[f"click: {name}"].append(milliseconds)
    page.click("#reset")
    moved = page.evaluate(_MOVE, MOVING)
    rows["pointer: masks per second"].append(moved["masks"])
    rows["pointer: frames per second"].append(moved["frames"])
    rows["pointer: longest frame, ms"].append(moved["worst"])


def _times(page: Any) -> dict[str, float]:
    """Return the milliseconds that the page shows, by stage."""
    texts = page.locator("#times tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    return {name: float(value.removesuffix(" ms")) for name, value in texts}


def _print_rows(title: str, rows: dict[str, list[float]]) -> None:
    for name, values in rows.items():
        print(f"{title}: {name:34s} median {statistics.median(values):.1f}, {len(values)} values")


def _run(folder: Path) -> int:
    """Segment the sample by glesam-run; return its peak memory in bytes."""
    x, y = COIN
    command = [sys.executable, "-c", RUN, str(SAMPLE), "--points", f"{x},{y}", *BACKEND]
    process = subprocess.Popen(
        [*command, "-o", str(folder / "run")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: glesam-run failed with {process.returncode}")
    return usage.ru_maxrss * 1024


def _serve() -> None:
    """Start glesam-serve, and click its first image."""
    with glesam_serve(*BACKEND) as server:
        _click_server(server.url)


def _click_server(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as http:
        name = http.post("/v1/images", content=SAMPLE.read_bytes()).json()["image_id"]
        body = {"prompts": [{"points": [COIN]}]}
        http.post(f"/v1/images/{name}/segment", json=body).raise_for_status()


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
