"""Job: one request waiting, running or finished in the queue."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kinetograph.request import VideoRequest

LOCAL = "local"  # the owner of every job where there are no keys

State = Literal["queued", "paused", "in_progress", "completed", "failed", "cancelled", "deleted"]
WAITING = ("queued", "paused")
FINAL = ("completed", "failed", "cancelled", "deleted")


def new_id() -> str:
    """An id that nobody can guess."""
    return f"video_{secrets.token_hex(16)}"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A job before it is in the queue: what is to be made, by which engine, for whom.

    `source` is the video that it is made from, `start` the name of an upload whose frames come first or are changed:
    the option of the request that has this name says which. Two drafts of one owner with the same `idempotency_key` are
    one job; `digest` tells whether they ask for the same.
    """

    engine: str
    request: VideoRequest
    owner: str = LOCAL
    kind: str = "create"
    source: str = ""
    start: str = ""
    priority: int = 0
    idempotency_key: str | None = None
    digest: str = ""
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A row of the queue. Times are seconds since 1970.

    `token` is that of the latest lease and, once the job is completed, the name of what it made in the archive.
    """

    id: str
    seq: int
    revision: int
    owner: str
    kind: str
    source: str
    start: str
    engine: str
    prompt: str
    request: Mapping[str, Any]
    state: State
    priority: int
    position: float
    idempotency_key: str | None
    digest: str
    created_at: float
    available_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    attempts: int
    worker: str
    token: str
    lease_until: float | None
    step: int
    steps: int
    warnings: list[str]
    error_code: str
    error_message: str
    traceback: str
    media: Mapping[str, Any] | None

    @property
    def asked(self) -> VideoRequest:
        """The request as a value."""
        return VideoRequest.from_dict(self.request)

    @property
    def leans(self) -> str:
        """The option that the upload in `start` is for."""
        return next((name for name, value in self.asked.options.items() if value == self.start), "start")

    @property
    def progress(self) -> int:
        """How far it has come, of 100. It is 100 when the file is there, and not before."""
        if self.state == "completed":
            return 100
        return min(99, 100 * self.step // self.steps) if self.steps else 0

    @property
    def final(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in FINAL


@dataclass(frozen=True)
class Page:
    """Some jobs of a list, and whether there are more."""

    jobs: tuple[Job, ...]
    more: bool


@dataclass(frozen=True)
class Preview:
    """One frame, a JPEG, of a video as it looks by now."""

    job: str
    revision: int
    step: int
    steps: int
    image: bytes


@dataclass(frozen=True)
class Worker:
    """A process that makes videos, when it was last seen, and which job it has ("" for none)."""

    id: str
    engines: list[str]
    started_at: float
    seen_at: float
    job: str
