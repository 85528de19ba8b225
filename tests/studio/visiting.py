"""A server of the tests' own, and a visit to its page."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import kinetograph

ROOT = Path(kinetograph.__file__).parent.parent


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
