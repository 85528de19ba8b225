"""Outlook: when a job will be done, as far as one can tell; looked up once a second at most."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from kinetograph.jobs import Job, Store

T = TypeVar("T")
FRESH = 1.0  # seconds
LEAST_POLL, MOST_POLL = 200, 5_000  # milliseconds between two questions of one client


class Outlook:
    """What is ahead of the jobs that wait, and how long those that run will take."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, object]] = {}

    def _fresh(self, name: str, ask: Callable[[], T]) -> T:
        with self._lock:
            when, value = self._known.get(name, (0.0, None))
            if time.monotonic() - when > FRESH:
                value = ask()
                self._known[name] = (time.monotonic(), value)
            return value  # type: ignore[return-value]

    def position(self, job: Job) -> int | None:
        """1 for the job that comes next; None for one that does not wait, or that stands far behind."""
        if job.state != "queued":
            return None
        places = self._fresh("order", lambda: {id: place for place, id in enumerate(self._store.order(), start=1)})
        return places.get(job.id)

    def usual(self, engine: str) -> float | None:
        """How many seconds a video of this engine took lately."""
        return self._fresh(f"usual {engine}", lambda: self._store.usual_seconds(engine))

    def workers(self) -> int:
        """How many workers there are."""
        return self._fresh("workers", lambda: len(self._store.workers()))

    def seconds_left(self, job: Job, now: float) -> float | None:
        """How many seconds are left, of the steps that were done or of what is usual; None where nobody can tell."""
        if job.state == "in_progress" and job.started_at is not None and 0 < job.step < job.steps:
            return round(max(0.0, now - job.started_at) / job.step * (job.steps - job.step), 1)
        if job.state not in ("queued", "in_progress") or (usual := self.usual(job.engine)) is None:
            return None
        if job.state == "in_progress":
            return round(max(0.0, usual - (now - (job.started_at or now))), 1)
        place = self.position(job)
        return None if place is None else round(usual * place / max(1, self.workers()), 1)

    def poll_after(self, job: Job) -> int:
        """After how many milliseconds it is worth asking again: a tenth of what such a video takes."""
        usual = self.usual(job.engine)
        return LEAST_POLL if usual is None else int(min(max(LEAST_POLL, usual * 100), MOST_POLL))
