"""Running: the server's process, and the worker processes that it starts, watches and stops."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from kinetograph import credentials
from kinetograph.errors import CannotWrite, InvalidRequest, StoreError
from kinetograph.jobs import Keys
from kinetograph.server import app
from kinetograph.server.desk import Desk
from kinetograph.server.settings import Settings

DRAIN = 30.0  # seconds for what is under way when the server stops
WATCH = 1.0  # seconds between two looks at the workers
SLOW_START = 20.0  # seconds that a worker may take until it is there
PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a worker that died is started again


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises StoreError, CannotWrite, InvalidRequest."""
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite.because(settings.folder, error) from error
    if settings.c2pa_cert is not None:
        credentials.certificate(settings.c2pa_cert, settings.c2pa_key)  # refused now, and not by every worker
    application = app.create(settings)
    desk: Desk = application.state.desk
    try:
        if not Keys(desk.store.database).all():
            settings.check_open()
        with _socket(settings) as listening:
            _serve(settings, application, listening)
    finally:
        desk.store.close()


def _serve(settings: Settings, application: FastAPI, listening: socket.socket) -> None:
    desk: Desk = application.state.desk
    port = listening.getsockname()[1]
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    crew = Crew(settings, desk)
    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(DRAIN),
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = _Server(config, desk)
    crew.start()
    print(f"kinetograph is listening on http://{shown}:{port}", flush=True)
    try:
        server.run(sockets=[listening])
    finally:
        crew.stop()


class _Server(uvicorn.Server):
    """Uvicorn, which ends the streams of events first: they would not end by themselves."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        self._desk.broadcast.close()
        super().handle_exit(sig, frame)


def _socket(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host.strip("[]"), settings.port))
        listening.listen(2048)  # from here on a connection waits, and is not refused
    except OSError as error:
        listening.close()
        message = f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
        raise InvalidRequest(message, field="port", hint="choose another --port, or 0 for any that is free") from error
    return listening


class Crew:
    """The workers that belong to a server: started, started again when they die, killed when they hang, stopped."""

    def __init__(self, settings: Settings, desk: Desk) -> None:
        self._settings, self._desk = settings, desk
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="crew", daemon=True)
        self._members: list[_Member] = [_Member(settings, number) for number in range(settings.workers)]

    def start(self) -> None:
        """Start them, and watch."""
        for member in self._members:
            member.start()
        self._thread.start()

    def stop(self) -> None:
        """Ask them to stop; what does not within the time is killed. Their jobs go back to the queue."""
        self._stopping.set()
        self._thread.join()
        for member in self._members:
            member.ask()
        end = time.monotonic() + DRAIN
        for member in self._members:
            member.end(end)

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH):
            for member in self._members:
                member.look(self._alive)

    def _alive(self) -> set[str] | None:
        """The names of the workers that gave a sign of life; None where nobody can tell."""
        try:
            return {worker.id for worker, _ in self._desk.store.workers()}
        except StoreError:
            return None


class _Member:
    """One worker process."""

    def __init__(self, settings: Settings, number: int) -> None:
        self._settings, self._number = settings, number
        self._process: subprocess.Popen[bytes] | None = None
        self._pause, self._next, self._began, self._checked = PAUSE, 0.0, 0.0, 0.0

    def start(self) -> None:
        """Start it."""
        environment = {**os.environ, "KINETOGRAPH_DATABASE": self._settings.database}
        # A session of its own: Ctrl-C is for the server, which then asks its workers to stop.
        self._process = subprocess.Popen(
            command(self._settings), stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        self._began = time.monotonic()

    def look(self, alive: Callable[[], set[str] | None]) -> None:
        """Kill it if it hangs. Start it again if it died, a little later each time it does so soon."""
        now = time.monotonic()
        if self._process is not None and now > self._checked + self._settings.lease:
            self._checked, names = now, alive()
            old = now - self._began > 3 * self._settings.lease + SLOW_START
            if names is not None and old and f"{socket.gethostname()}:{self._process.pid}" not in names:
                self._process.kill()
        if self._process is not None and self._process.poll() is not None:
            code, lived = self._process.returncode, now - self._began
            self._process = None
            self._pause = PAUSE if lived > LONGEST_PAUSE else min(2 * self._pause, LONGEST_PAUSE)
            self._next = now + self._pause
            said = f"kinetograph: worker {self._number} ended with {code}, the next one begins in {self._pause:g} s"
            print(said, file=sys.stderr, flush=True)
        if self._process is None and now >= self._next:
            self.start()

    def ask(self) -> None:
        """Ask it to stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def end(self, by: float) -> None:
        """Wait until it stopped, and kill it if it does not."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.1, by - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def command(settings: Settings) -> list[str]:
    """The command line of a worker. A password of the database is not in it: others could read it there."""
    words = [sys.executable, "-m", "kinetograph", "worker", "--archive", str(settings.archive)]
    words += ["--device", settings.device, "--lease", str(settings.lease), "--limit", str(settings.job_seconds)]
    words += ["--attempts", str(settings.attempts), "--free", str(settings.free), "--parent", str(os.getpid())]
    words += ["--retention", str(settings.keep / 86_400)] if settings.keep is not None else []
    for option, path in (("--c2pa-cert", settings.c2pa_cert), ("--c2pa-key", settings.c2pa_key)):
        words += [option, str(path.resolve())] if path is not None else []
    return words + [word for reference in settings.engines for word in ("--engine", reference)]
