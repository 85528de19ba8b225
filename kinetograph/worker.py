"""The worker: claim a job, make its video, put it into the archive, finish the job. Again.

While an engine works, a second thread keeps the lease, tells of progress, and hears that the job was cancelled or given
away; the next step then does not happen. Whatever an engine raises ends its job and not the worker.
"""

import errno
import io
import os
import signal
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

from PIL import Image

from kinetograph import engine
from kinetograph.archive import Archive, Entry
from kinetograph.continuation import Start, from_clip
from kinetograph.credentials import Certificate
from kinetograph.engine import Progress
from kinetograph.errors import (
    Cancelled,
    CannotRead,
    CannotWrite,
    InvalidRequest,
    KinetographError,
    LeaseLost,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from kinetograph.jobs import Job, Store
from kinetograph.media import Frames, read_frames
from kinetograph.request import VideoRequest
from kinetograph.video import Provenance, Video

PULSE = 0.2  # seconds between two looks at whether the job is still wanted
PREVIEWS = 0.5  # seconds between two previews
PREVIEW = 256  # pixels on their longer side
IDLE = 0.2  # seconds between two looks for a job
TIDY = 5.0  # seconds between two looks for leases that ran out
LAST_WORDS = 5.0  # seconds that an engine has to stop after its time is over
FULL = 15.0  # seconds after which a disk that is full, or cannot be written to, is looked at again
AGAIN = 1.0  # seconds between two questions to a database that is away
HANGING_EXIT = 75
PASSING = (StoreUnavailable, StoreFull)  # what the database may say, and not say any more in a while


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a worker does not exceed. Seconds and bytes."""

    seconds: float = 3600.0  # for one job
    grace: float = 5.0  # for the job at hand when the worker is asked to stop
    free: int = 200_000_000  # below that much room on the archive's disk nothing is begun
    keep: float | None = None  # for how long a finished video is kept; None for ever


class GivenBack(Cancelled):
    """The worker is to stop: the job goes back to the queue."""


class Worker:
    """One process that makes videos, one after the other."""

    def __init__(
        self,
        store: Store,
        archive: Archive,
        *,
        name: str = "",
        engines: Sequence[str] = (),
        device: str = "auto",
        limits: Limits | None = None,
        signer: Certificate | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.store, self.archive, self.engines, self.device = store, archive, tuple(engines), device
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self.limits, self.signer, self.wanted = limits or Limits(), signer, wanted
        self.stopping = threading.Event()
        self._tidied = self._said = 0.0

    def run(self) -> None:
        """Work until `stopping` is set, or nobody wants this worker, also while the database is away for a time."""
        while not self.stopping.is_set() and self.wanted():
            try:
                if not self.step():
                    self.stopping.wait(IDLE)
            except PASSING:
                self.stopping.wait(AGAIN)
        with suppress(StoreError):  # else it is forgotten after the time of a lease
            self.store.gone(self.name)

    def step(self) -> bool:
        """Do one job, if there is one to do."""
        self._look_around()
        if self.archive.free() < self.limits.free:
            self._rest()
            return False
        job = self.store.claim(self.name, self.engines)
        if job is None:
            return False
        with suppress(*PASSING):  # the job is ours already, whether or not that can be shown
            self.store.seen(self.name, self.engines, job.id)
        self.work(job)
        self._said = 0.0
        return True

    def _look_around(self) -> None:
        """Now and then, say that this worker is alive, and look for leases that ran out."""
        now = time.monotonic()
        if now > self._said + self.store.lease / 3:
            self._said = now
            self.store.seen(self.name, self.engines)
        if now > self._tidied + min(TIDY, self.store.lease / 2):
            self._tidied = now
            self.store.reclaim()

    def work(self, job: Job) -> None:
        """Make the video of a job that this worker holds, and say what came of it."""
        with _Pulse(self, job) as pulse:
            written = self._worked(job, pulse)
        if not written:  # the next job would find the same disk: there is no use in making it for that
            self._rest()

    def _worked(self, job: Job, pulse: "_Pulse") -> bool:
        """Whether there was a disk to write to."""
        try:
            video, heard = self._made(job, pulse)
            pulse.check()
            entry = self._kept(job, video)
            self._finish(job, entry, video, heard)
        except LeaseLost:
            pass
        except GivenBack:
            self._say(lambda: self.store.release(job))
        except Exception as error:  # an engine may raise anything; its job ends, the worker goes on
            told = traceback.format_exc()
            traceback.clear_frames(error.__traceback__)  # what an engine held when it failed may be all the memory
            print(told, flush=True)
            if isinstance(error, CannotWrite) and not _out_of_memory(error):
                self._say(partial(self._unwritten, job, error, told))
                return False
            code, message = _fault(error)
            if job.start:  # a stranger sent it, and may not know where it lies
                message = message.replace(str(self.archive.upload(job.start).resolve()), "what was sent")
            self._say(lambda: self.store.fail(job, code, message, traceback=told, keep=self.limits.keep))
        return True

    def _unwritten(self, job: Job, error: CannotWrite, told: str) -> None:
        """Try again what could not be written: on a full disk as often as it takes, else as often as any job."""
        if error.full or job.attempts < self.store.most_attempts:
            self.store.release(job, after=FULL, counted=not error.full)
            return
        said = f"the server could not write the video, {job.attempts} times; the operator finds out why under its id"
        self.store.fail(job, "cannot_write", said, traceback=told, keep=self.limits.keep)

    def _rest(self) -> None:
        """Begin nothing for a while, and be seen to be alive."""
        end = time.monotonic() + FULL
        while not self.stopping.is_set() and (left := end - time.monotonic()) > 0:
            self.stopping.wait(min(left, self.store.lease / 3))
            with suppress(*PASSING):
                self._look_around()

    def _made(self, job: Job, pulse: "_Pulse") -> tuple[Video, list[str]]:
        """The video, and what the engine warned of."""
        request, start = self._settled(job)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)  # what is meant for whoever asked
            video = engine.generate(job.engine, request, pulse.told, device=self.device)
        heard = [str(said.message) for said in caught if said.category is UserWarning]
        return _without_paths(video, job.leans, start), heard

    def _settled(self, job: Job) -> tuple[VideoRequest, Path | None]:
        """The request with the file, if any, that its frames go on from or are made of."""
        if not job.start:
            return job.asked, None
        path = self.archive.upload(job.start)
        if not path.exists():
            raise CannotRead("what the video was to go on from is no longer there")
        start = from_clip(path) if path.suffix == ".mp4" else Start(str(path), read_frames(path))
        options = start.settings(job.leans, options=dict(job.asked.options))["options"]
        return replace(job.asked, options=options), path

    def _kept(self, job: Job, video: Video) -> Entry:
        facts = {"job": job.id, "owner": job.owner, "kind": job.kind, "source": job.source}
        return self.archive.keep(job.token, video, facts, self.signer)

    def _finish(self, job: Job, entry: Entry, video: Video, heard: Sequence[str]) -> None:
        made = cast(Provenance, video.provenance)
        said: dict[str, Any] = {"bytes": entry.facts["bytes"], "sha256": entry.facts["sha256"]}
        said |= {"frames_sha256": made.frames_sha256, "generation_seconds": made.seconds}
        said |= {"device": made.device, "weights": made.weights}
        try:
            self._patiently(lambda: self.store.finish(job, said, heard, self.limits.keep))
        except LeaseLost:
            self.archive.remove(entry.name)
            raise

    def _say(self, saying: Callable[[], object]) -> None:
        """Tell the store what came of a job, unless it is no longer ours."""
        try:
            self._patiently(saying)
        except LeaseLost:
            return

    def _patiently(self, saying: Callable[[], object]) -> None:
        """Wait for a database that is away, for as long as anybody can still believe in the lease, and then some."""
        end = time.monotonic() + 10 * self.store.lease
        while True:
            try:
                saying()
                return
            except PASSING:
                if time.monotonic() > end:
                    raise
                time.sleep(AGAIN)


class _Pulse:
    """What a job and its engine hear from outside while they work, and what outside hears of them."""

    def __init__(self, worker: Worker, job: Job) -> None:
        self._worker, self._job = worker, job
        self._began = self._beaten = time.monotonic()
        self._stopped: float | None = None  # since when the worker is to stop
        self._shown = 0.0
        self._latest: Progress | None = None
        self._told: tuple[int, int] = (0, 0)
        self._verdict: Cancelled | LeaseLost | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> "_Pulse":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def told(self, progress: Progress) -> None:
        """The engine's progress callback: costs nothing, and raises what there is to hear."""
        self._latest = progress
        self.check()

    def check(self) -> None:
        """Raise what there is to hear: LeaseLost, or GivenBack."""
        if self._verdict is not None:
            raise self._verdict

    def _beat(self) -> None:
        while not self._over.wait(PULSE):
            try:
                self._once()
            except LeaseLost as lost:
                self._verdict = lost
                self._see_it_end()
                return
            except PASSING:
                continue  # the lease may run out meanwhile; then it is lost, and the next look says so
            if self._verdict is not None:
                self._see_it_end()
                return

    def _once(self) -> None:
        now = time.monotonic()
        if now - self._began > self._worker.limits.seconds:
            self._give_up()
        if self._worker.stopping.is_set():
            self._stopped = self._stopped or now
            if now - self._stopped > self._worker.limits.grace:
                self._verdict = GivenBack("the worker is to stop")
                return
        latest = self._latest
        step, steps = (latest.step, latest.steps) if latest else (0, 0)
        if (step, steps) == self._told and now - self._beaten < self._worker.store.lease / 3:
            self._worker.store.check(self._job)
            return
        picture = self._picture(latest, now)
        self._worker.store.beat(self._job, step, steps, picture)
        self._told, self._beaten = (step, steps), now
        self._worker.store.seen(self._worker.name, self._worker.engines, self._job.id)

    def _picture(self, latest: Progress | None, now: float) -> bytes | None:
        if latest is None or latest.preview is None or now - self._shown < PREVIEWS:
            return None
        self._shown = now
        return jpeg(latest.preview)

    def _give_up(self) -> None:
        said = f"it took more than the {self._worker.limits.seconds:g} seconds that a video may take"
        self._worker.store.fail(self._job, "timeout", said, keep=self._worker.limits.keep)
        raise LeaseLost(said)

    def _see_it_end(self) -> None:
        """The job is no longer ours: the engine hears of it at its next step, and the worker is alive until then.

        One that hangs beyond the time of its job, or when the worker is to stop, is ended with the whole process.
        """
        heard = said = time.monotonic()
        while not self._over.wait(PULSE):
            now = time.monotonic()
            late = now - self._began > self._worker.limits.seconds
            last = max(heard, self._began + self._worker.limits.seconds) if late else heard
            if (late or self._worker.stopping.is_set()) and now - last > LAST_WORDS:
                if isinstance(self._verdict, GivenBack):
                    with suppress(KinetographError):  # then its lease runs out
                        self._worker.store.release(self._job)
                os._exit(HANGING_EXIT)
            if now - said > self._worker.store.lease / 3:
                said = now
                with suppress(*PASSING):
                    self._worker.store.seen(self._worker.name, self._worker.engines)


def jpeg(frame: Frames) -> bytes:
    """A frame as a small JPEG."""
    picture = Image.fromarray(frame)
    picture.thumbnail((PREVIEW, PREVIEW))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _fault(error: Exception) -> tuple[str, str]:
    """What an error is called, and what whoever asked may know of it: of our own errors, which speak of the request."""
    if isinstance(error, InvalidRequest):
        return "invalid_request", f"{error}{f' ({error.hint})' if error.hint else ''}"
    if _out_of_memory(error):
        return "resource_exhausted", "there is not enough memory for this video; ask for fewer frames or a smaller size"
    if isinstance(error, CannotRead):
        return "input_unreadable", "what the video was to go on from cannot be read"
    if isinstance(error, KinetographError):
        return "engine_error", f"the engine cannot make this video ({type(error).__name__})"
    return "engine_error", "the engine failed; the operator finds out why under the id of this video"


def _out_of_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, in whatever words: Python's, the system's, or torch's two."""
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch on a processor
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return error.__cause__ is not None and _out_of_memory(error.__cause__)


def _without_paths(video: Video, option: str, start: Path | None) -> Video:
    """The video, whose provenance names the file that an option names, but not where that lies on this machine."""
    if start is None or video.provenance is None:
        return video
    request = video.provenance.request
    named = replace(request, options={**request.options, option: start.name})
    return Video(video.frames, video.fps, replace(video.provenance, request=named))


@contextmanager
def stopped_by_signals(stopping: threading.Event) -> Iterator[None]:
    """Set `stopping` at SIGTERM and at Ctrl-C, which then do nothing else."""

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(worker: Worker) -> None:
    """Run a worker in this process until SIGTERM or Ctrl-C; the job at hand has some time, then it is given back."""
    with stopped_by_signals(worker.stopping):
        worker.run()
