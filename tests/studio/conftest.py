"""A real server and a real browser for the tests of the page."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

import kinetograph
from kinetograph.neural.training import recipes

HERE = Path(__file__).parent
ROOT = Path(kinetograph.__file__).parent.parent
SWITCHES = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
METADATA = "Metadata-Version: 2.1\nName: kinetograph-dissolving\nVersion: 1.0\n"


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """A folder from which the engine of the tests is found, as if another distribution had brought it."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copy(HERE / "dissolving.py", folder / "kinetograph_dissolving.py")
    about = folder / "kinetograph_dissolving-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(METADATA)
    (about / "entry_points.txt").write_text("[kinetograph.engines]\ndissolving = kinetograph_dissolving\n")
    return folder


@contextmanager
def serving(folder, stranger, *arguments):
    """A server with one worker, as a process of its own; gives its address."""
    command = [sys.executable, "-m", "kinetograph", "serve", "--folder", folder, *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{stranger}", "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=folder
        )
    try:
        first = process.stdout.readline()
        assert "is listening on" in first, (folder / "log.txt").read_text()
        yield first.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


@pytest.fixture(scope="session")
def flow(tmp_path_factory):
    """A model that goes on from frames; what it draws is noise."""
    folder = tmp_path_factory.mktemp("flow") / "run"
    recipes.get("flow-tiny").train(folder, device="cpu", steps=2)
    return f"flow:{folder}"


@pytest.fixture(scope="session")
def url(stranger, flow, tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    allowed = [word for name in ("render", "gan", "dissolving", flow) for word in ("--allow", name)]
    with serving(folder, stranger, "--port", 0, "--engine", "render", "--rate", "10000/minute", *allowed) as address:
        yield address


@pytest.fixture
def server(url):
    """The same server over HTTP, empty, and left empty."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        yield client
        for video in client.get("/v1/videos?limit=100").json()["data"]:
            client.delete(f"/v1/videos/{video['id']}")
        client.post("/v1/queue/resume", json={})


@pytest.fixture(scope="session")
def chromium():
    """The system's browser; Playwright's own is never downloaded."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None and os.environ.get("KINETOGRAPH_BROWSER") != "required":
        pytest.skip("no Chromium here: apt-get install chromium")
    assert path, "KINETOGRAPH_BROWSER=required, and there is no Chromium: apt-get install chromium"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES.split())
        yield browser
        browser.close()


class Visit:
    """One visit to the page: what it complained of, and whom it called."""

    def __init__(self, browser, address, **how):
        self.address, self.complaints, self.calls = address, [], []
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | how))
        self.context.route("**/*", self._watched)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _watched(self, route):
        self.calls.append(route.request.url)
        if route.request.url.startswith((self.address, "blob:", "data:")):
            route.continue_()
        else:
            self.complaints.append(f"a request to {route.request.url}")
            route.abort()

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} {message.location}")

    def open(self, fragment=""):
        self.page.goto(self.address + "/" + fragment)
        self.page.wait_for_selector("html[data-ready]")
        return self.page


@pytest.fixture
def visit(chromium, url, server):
    """A way to open the page; in the end nobody may have complained."""
    visits = []

    def opened(fragment="", **how):
        visits.append(Visit(chromium, url, **how))
        return visits[-1].open(fragment)

    yield opened
    for one in visits:
        one.context.close()
    assert [complaint for one in visits for complaint in one.complaints] == []
