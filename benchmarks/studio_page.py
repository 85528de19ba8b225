"""How soon the studio page is there: first paint, ready, requests and bytes, in a real Chromium on an empty cache.

    python benchmarks/studio_page.py
    python benchmarks/studio_page.py --pictures docs/images

Starts a server of its own. With --pictures it makes a few clips with the bundled GAN and writes the pictures of
the docs.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

SWITCHES = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
PROMPTS = [
    ("a red circle moving up-right", 1),
    ("a large purple ball bouncing up and down", 2),
    ("a green disc zigzagging horizontally quickly", 4),
    ("a pink ball growing on black", 5),
    ("a big orange ball drifts slowly to the left over sky blue", 6),
    ("a large teal ball bouncing up and down", 8),
    ("a big pink disc falling on a navy background", 9),
    ("a small yellow dot circling clockwise on a navy background", 3),
]
PAINT = """() => new Promise((done) => {
  const seen = performance.getEntriesByName("first-contentful-paint")[0];
  if (seen) return done(seen.startTime);
  new PerformanceObserver((list) => list.getEntries().forEach((one) => {
    if (one.name === "first-contentful-paint") done(one.startTime);
  })).observe({type: "paint", buffered: true});
})"""


def main() -> None:
    """Measure, and print one table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--visits", type=int, default=7)
    asked.add_argument("--pictures", type=Path)
    given = asked.parse_args()
    chromium = shutil.which("chromium") or sys.exit("no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        command = [sys.executable, "-m", "kinetograph", "serve", "--port", "0", "--folder", folder]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            url = server.stdout.readline().split()[-1]
            browser = playwright.chromium.launch(executable_path=chromium, args=SWITCHES.split())
            report(browser, url, given.visits)
            if given.pictures:
                pictures(browser, url, given.pictures)
            browser.close()
        finally:
            server.terminate()
            server.wait(60)


def report(browser: Browser, url: str, visits: int) -> None:
    """The middle of several visits, each with a cache of its own."""
    rows = [visit(browser, url) for _ in range(visits)]
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name:28}{statistics.median(values):8.0f}   ({min(values):.0f} to {max(values):.0f})")


def visit(browser: Browser, url: str) -> dict[str, float]:
    """One visit: milliseconds, requests, bytes."""
    context = browser.new_context()
    page = context.new_page()
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url))
    page.goto(url)
    paint = page.evaluate(PAINT)
    page.wait_for_selector("html[data-ready]")
    ready = page.evaluate("performance.now()")
    page.wait_for_timeout(300)
    files = [call for call in calls if "/v1/" not in call]
    sizes = page.evaluate("performance.getEntries().reduce((all, one) => all + (one.transferSize || 0), 0)")
    foreign = [call for call in calls if not call.startswith(url)]
    context.close()
    times = {"first paint, ms": paint, "ready, ms": ready}
    counts = {"requests for files": len(files), "requests to the API": len(calls) - len(files)}
    return times | counts | {"bytes": sizes, "requests elsewhere": len(foreign)}


def pictures(browser: Browser, url: str, folder: Path) -> None:
    """The page by day and by night, on a phone, and two clips side by side."""
    made = [make(url, prompt, seed) for prompt, seed in PROMPTS]
    for name, scheme in (("light", "light"), ("dark", "dark")):
        page = opened(browser, f"{url}/#{made[4]}", scheme, 1280, 860)
        if scheme == "light":
            page.fill("#prompt", "a large purple ball bouncing up and down")
        save(page, folder / f"studio-{name}.png")
    page = opened(browser, f"{url}/#{made[7]}", "dark", 390, 844)
    save(page, folder / "studio-phone.png")
    page = opened(browser, url, "light", 1280, 860)
    for index in (2, 6):
        page.locator(".card .mark input").nth(index).check(force=True)
    page.click("#tray-compare")
    page.wait_for_timeout(1200)
    save(page, folder / "studio-compare.png")


def make(url: str, prompt: str, seed: int) -> str:
    """A clip of the bundled GAN; gives its id."""
    video = httpx2.post(f"{url}/v1/videos", json={"prompt": prompt, "seed": seed}).raise_for_status().json()
    while video["status"] in ("queued", "in_progress"):
        time.sleep(0.1)
        video = httpx2.get(f"{url}/v1/videos/{video['id']}").json()
    return str(video["id"])


def opened(browser: Browser, address: str, scheme: str, width: int, height: int) -> Page:
    """The page, with its film in the middle of playing."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    page.wait_for_timeout(1500)
    if film := page.query_selector("#film video"):
        film.evaluate("(video) => { video.pause(); video.currentTime = 0.45; }")
        page.wait_for_timeout(300)
    return page


def save(page: Page, path: Path) -> None:
    """A picture of the window, in few colours: small enough for a repository."""
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
