"""A real server and a real browser for the tests of the page."""

import os
import shutil
from pathlib import Path

import httpx2
import pytest
from served import announce
from visiting import Visit, serving

from kinetograph.neural.training import recipes

HERE = Path(__file__).parent
SWITCHES = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """A folder from which the engine of the tests is found, as if another distribution had brought it."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copy(HERE / "dissolving.py", folder / "kinetograph_dissolving.py")
    announce(folder, "dissolving", "kinetograph_dissolving")
    return folder


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


@pytest.fixture(scope="module")
def chromium():
    """The system's browser; Playwright's own is never downloaded. Its loop of events must be gone before another file's
    tests, which begin loops of their own."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None and os.environ.get("CI") != "true":
        pytest.skip("no Chromium here: apt-get install chromium")
    assert path, "there is no Chromium: apt-get install chromium"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES.split())
        yield browser
        browser.close()


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
