"""A pool: so many workers on a Ray cluster, replaced when they die, all for one queue and one archive.

    place     one worker that there is to be; told apart by its number
    hand      the process on some node that fills it, a Ray actor

A pool keeps no books of its own: who holds which job is known to the database alone, so that a hand, a node or the pool
itself may be lost at any moment. Hands end with the pool's process.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinetograph import credentials, executors, files
from kinetograph.archive import Archive
from kinetograph.errors import CannotRead, InvalidRequest
from kinetograph.jobs import Store
from kinetograph.worker import LAST_WORDS, Limits, Worker, stopped_by_signals

WATCH = 0.5  # seconds between two looks at the hands
CROWDED = 15.0  # seconds without a hand after which it is said that the cluster has no room
PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a hand that ended is replaced

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker is told: plain data, which crosses to other machines, with paths that are right there, too.

    `mark` is the name of a file in the archive, by which a node knows that it sees the same folder.
    """

    database: str
    archive: Path
    engines: tuple[str, ...] = ()
    device: str = "auto"
    lease: float = 30.0
    attempts: int = 3
    limits: Limits = field(default_factory=Limits)
    c2pa_cert: Path | None = None
    c2pa_key: Path | None = None
    mark: str = ""

    def worker(self, wanted: Callable[[], bool] = lambda: True) -> Worker:
        """The worker that does this, in this process. Raises StoreError, CannotWrite, CannotRead."""
        signer = None if self.c2pa_cert is None else credentials.certificate(self.c2pa_cert, self.c2pa_key)
        store = Store.open(self.database, lease=self.lease, most_attempts=self.attempts, patience=10.0)
        how = {"engines": self.engines, "device": self.device, "limits": self.limits}
        return Worker(store, Archive.open(self.archive), **how, signer=signer, wanted=wanted)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many workers there are to be, and what each of them asks of its node; without `gpus`, a card where it may
    use one and the cluster has some. Raises InvalidRequest.
    """

    count: int = 1
    cpus: float = 1.0
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidRequest(f"{self.count} workers make nothing", field="count", hint="nearest: 1")
        for name, value in (("cpus", self.cpus), ("gpus", self.gpus or 0.0)):
            if value < 0 or (value > 1 and value != int(value)):
                message = f"a worker cannot ask for {value:g} {name}"
                raise InvalidRequest(message, field=name, hint="a fraction below 1, or a whole number")


class Hand:
    """A worker in a process of some node. `stop` is heard while `work` is under way."""

    def __init__(self, task: Task) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch, which comes later, spins otherwise
        if not (task.archive / task.mark).exists():
            message = f"{task.archive} is not the pool's archive on this node"
            raise CannotRead(message, hint="the archive must be a folder that every node sees under the same path")
        self._worker = task.worker()

    def work(self) -> None:
        """Work until `stop` is called."""
        self._worker.run()

    def stop(self) -> None:
        """Give the job at hand back, or finish it if that is done soon."""
        self._worker.stopping.set()


def run(
    task: Task, size: Size, address: str, *, tell: Tell = lambda said: None, wanted: Callable[[], bool] = lambda: True
) -> None:
    """Keep a pool alive until SIGTERM or Ctrl-C, or until it is not wanted any more; then its jobs are given back.

    `tell` hears what becomes of the workers. Raises MissingExtra, Unreachable, CannotWrite, StoreError.
    """
    Store.open(task.database, patience=10.0).close()  # refused here, and not by every node
    Archive.open(task.archive)
    stopping = threading.Event()
    with executors.joined(address, heard=True) as ray, _marked(task) as marked, stopped_by_signals(stopping):
        _check_database(ray, task)
        hire = _hiring(ray, marked, size)
        places = [_Place(ray, hire, number, tell) for number in range(size.count)]
        try:
            while wanted() and not stopping.is_set():
                for place in places:
                    place.look()
                stopping.wait(WATCH)
        finally:
            _stop(ray, places, task.limits.grace + 2 * LAST_WORDS)


@contextmanager
def _marked(task: Task) -> Iterator[Task]:
    """The task with a mark in its archive, which is there as long as the pool is."""
    archive = task.archive.resolve()
    mark = archive / f".pool-{secrets.token_hex(8)}"
    files.write(mark, b"")
    try:
        yield Task(**{**task.__dict__, "archive": archive, "mark": mark.name})
    finally:
        mark.unlink(missing_ok=True)


def _check_database(ray: Any, task: Task) -> None:
    nodes = sum(node["Alive"] for node in ray.nodes())
    if task.database.startswith("sqlite") and nodes > 1:
        message = f"SQLite serves one machine, and the cluster has {nodes} nodes"
        raise InvalidRequest(message, field="database", hint="--database postgresql+psycopg://USER@HOST/NAME")


def _hiring(ray: Any, task: Task, size: Size) -> Callable[[], Any]:
    """A function that asks the cluster for one more hand."""
    cards = ray.cluster_resources().get("GPU", 0)
    own = 1.0 if task.device.startswith("cuda") or (task.device == "auto" and cards > 0) else 0.0
    needs = {"num_cpus": size.cpus, "num_gpus": own if size.gpus is None else size.gpus}
    actor = ray.remote(max_restarts=0, max_concurrency=2, scheduling_strategy="SPREAD", **needs)(Hand)
    return lambda: actor.remote(task)


class _Place:
    """One worker that there is to be, and the hand that fills it: none yet, one that comes, or one that works."""

    def __init__(self, ray: Any, hire: Callable[[], Any], number: int, tell: Tell) -> None:
        self._ray, self._hire, self._number, self._tell = ray, hire, number, tell
        self.hand: Any = None
        self.work: Any = None
        self._coming: Any = None
        self._since = self._next = 0.0
        self._pause, self._crowded = PAUSE, False

    def look(self) -> None:
        """Take the next step, if there is one: ask for a hand, let it work, see that it ended."""
        now = time.monotonic()
        if self.hand is None:
            if now >= self._next:
                self.hand = self._hire()
                self._coming, self._since, self._crowded = self.hand.__ray_ready__.remote(), now, False
        elif self.work is None:
            self._await(now)
        elif self._done(self.work):
            self._ended(self.work, now)

    def _await(self, now: float) -> None:
        if not self._done(self._coming):
            if now > self._since + CROWDED and not self._crowded:
                self._crowded = True
                self._tell(f"worker {self._number} waits: the cluster has no room for it yet")
            return
        try:
            self._ray.get(self._coming)
        except self._ray.exceptions.RayError:
            self._ended(self._coming, now)
            return
        self.work, self._since = self.hand.work.remote(), now
        self._tell(f"worker {self._number} works")

    def _done(self, reference: Any) -> bool:
        return bool(self._ray.wait([reference], timeout=0)[0])

    def _ended(self, reference: Any, now: float) -> None:
        """Say why, and ask for another one a little later each time it happens soon."""
        try:
            self._ray.get(reference)
            why = "it returned"
        except self._ray.exceptions.RayError as error:
            why = _why(error)
        self.kill()  # one that cannot be reached may still be there
        self._pause = PAUSE if self.work and now - self._since > LONGEST_PAUSE else min(2 * self._pause, LONGEST_PAUSE)
        self.hand = self.work = self._coming = None
        self._next = now + self._pause
        self._tell(f"worker {self._number} ended, the next one begins in {self._pause:g} s ({why})")

    def kill(self) -> None:
        """End the hand at once; its lease sees to its job."""
        if self.hand is not None:
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(self.hand)


def _why(error: Exception) -> str:
    """The line of a trace from another machine that says what happened: the last one that names an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kinds = ("Error", "Read", "Write", "Unavailable", "Missing")
    named = [line for line in lines if line.split(":")[0].endswith(kinds)]
    return (named or lines[:1] or [type(error).__name__])[-1][:300]


def _stop(ray: Any, places: list[_Place], patience: float) -> None:
    """Let every hand give its job back; who does not within the time is killed."""
    working = [place for place in places if place.work is not None]
    for place in working:
        place.hand.stop.remote()
    if working:
        ray.wait([place.work for place in working], num_returns=len(working), timeout=patience)
    for place in places:
        place.kill()
