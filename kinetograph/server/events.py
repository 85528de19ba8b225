"""Events: changes of jobs as a stream (server-sent events), from one look at the database for all who watch.

An event's id is the revision of its job. Whoever comes back with Last-Event-ID is told what changed since: not every
step, but always the latest state, and so always the last one.
"""

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi.sse import format_sse_event

from kinetograph.errors import QuotaExceeded, StoreError
from kinetograph.jobs import Job, Preview, Store
from kinetograph.server import wire
from kinetograph.server.outlook import Outlook

LOOK = 0.1  # seconds between two looks, while somebody watches
ALIVE = 15.0  # seconds after which a silent stream says that it is there
MOST = 1_000  # streams at once


@dataclass(eq=False)
class Watcher:
    """Somebody who watches: the newest event of each job waits here until it is sent, so a slow one costs little."""

    owner: str
    job: str | None
    loop: asyncio.AbstractEventLoop
    news: asyncio.Event = field(default_factory=asyncio.Event)
    pending: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)

    def wants(self, job: Job) -> bool:
        """Whether this is a job to tell of."""
        return job.owner == self.owner and self.job in (None, job.id)

    def put(self, kind: str, id: str, revision: int, said: Any) -> None:
        """Let an event wait, in the place of an older one."""
        self.pending[kind, id] = revision, said
        self.news.set()


class Broadcast:
    """One thread that looks at the database, and everybody who watches."""

    def __init__(self, store: Store, outlook: Outlook) -> None:
        self._store, self._outlook = store, outlook
        self._watchers: set[Watcher] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.closing = False

    def watch(self, owner: str, job: str | None, loop: asyncio.AbstractEventLoop) -> Watcher:
        """Begin to watch: whatever changes from now on is told. Raises QuotaExceeded where too many do."""
        watcher = Watcher(owner, job, loop)
        with self._lock:
            if len(self._watchers) >= MOST:
                raise QuotaExceeded("too many streams are open", retry_after=10)
            if self._thread is None:
                since = self._store.revision()
                self._thread = threading.Thread(target=self._look, args=(since,), name="events", daemon=True)
                self._thread.start()
            self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Watch no longer."""
        with self._lock:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End every stream: the server stops."""
        self.closing = True
        with self._lock:
            for watcher in self._watchers:
                watcher.loop.call_soon_threadsafe(watcher.news.set)

    def _look(self, since: int) -> None:
        while not self.closing:
            time.sleep(LOOK)
            with self._lock:
                if not self._watchers:
                    self._thread = None
                    return
            try:
                since = self._tell(since)
            except StoreError:
                time.sleep(1.0)  # the streams stay open and go on when the database is there again

    def _tell(self, since: int) -> int:
        """Tell everybody what changed since a revision; the revision up to which that is."""
        changed = self._store.changed(since)
        for job in changed:
            for watcher in self._those_who_want(job):
                watcher.loop.call_soon_threadsafe(watcher.put, *event(job, self._outlook))
        by_id = {job.id: job for job in changed}
        for preview in self._store.previews(since):
            if preview.job in by_id:
                for watcher in self._those_who_want(by_id[preview.job]):
                    watcher.loop.call_soon_threadsafe(watcher.put, *picture(preview))
        return changed[-1].revision if changed else since

    def _those_who_want(self, job: Job) -> list[Watcher]:
        with self._lock:
            return [watcher for watcher in self._watchers if watcher.wants(job)]


def event(job: Job, outlook: Outlook) -> tuple[str, str, int, Any]:
    """A job as an event: its kind, id, revision and content."""
    if job.state == "deleted":
        return "deleted", job.id, job.revision, {"id": job.id}
    return "video", job.id, job.revision, wire.video(job, outlook)


def picture(preview: Preview) -> tuple[str, str, int, Any]:
    """A preview as an event."""
    url = f"data:image/jpeg;base64,{base64.b64encode(preview.image).decode()}"
    said = {"id": preview.job, "step": preview.step, "steps": preview.steps, "image": url}
    return "preview", preview.job, preview.revision, said


async def stream(
    broadcast: Broadcast, watcher: Watcher, first: list[tuple[str, str, int, Any]], previews: bool
) -> AsyncIterator[bytes]:
    """The events of a watcher as bytes: those that are known already, and then what comes."""
    told: dict[tuple[str, str], int] = {}
    try:
        yield format_sse_event(retry=1000)
        for kind, id, revision, said in first:
            told[kind, id] = revision
            yield _bytes(kind, revision, said)
            if _ends(watcher, kind, said):
                return
        while not broadcast.closing:
            try:
                await asyncio.wait_for(watcher.news.wait(), ALIVE)
            except TimeoutError:
                yield b": \n\n"
                continue
            watcher.news.clear()
            pending, watcher.pending = sorted(watcher.pending.items(), key=lambda item: item[1][0]), {}
            for (kind, id), (revision, said) in pending:
                if revision <= told.get((kind, id), -1) or (kind == "preview" and not previews):
                    continue
                told[kind, id] = revision
                yield _bytes(kind, revision, said)
                if _ends(watcher, kind, said):
                    return
    finally:
        broadcast.leave(watcher)


def _bytes(kind: str, revision: int, said: Any) -> bytes:
    return format_sse_event(event=kind, id=str(revision), data_str=json.dumps(said, ensure_ascii=False))


def _ends(watcher: Watcher, kind: str, said: Any) -> bool:
    """Whether nothing more will come: the one job that is watched is over."""
    over = kind == "deleted" or (kind == "video" and said["status"] in ("completed", "failed"))
    return watcher.job is not None and over
