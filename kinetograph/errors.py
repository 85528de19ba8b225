"""Everything that is raised on purpose: one tree, every error with a message and, where facts allow, a hint.

KinetographError
├── InvalidRequest          a value that no video can be made from          exit 2
├── UnknownName             an engine, world, metric ... that is not here   exit 2
├── InvalidVideo            an array that is not a video
├── MediaError              files
│   ├── UnsupportedFormat   a container that cannot hold this               exit 2
│   ├── OutputExists        something is already there                      exit 2
│   ├── CannotWrite         the disk, the folder or the encoder said no
│   ├── CannotRead          missing, truncated, hostile or foreign
│   └── NoProvenance        a file that does not say how it was made
├── PluginError             an addition of another distribution that cannot be loaded
├── WeightsError            a checkpoint that is missing, damaged or unfit
│   ├── ModelMissing        a pretrained model that is not on this machine
│   ├── UnsafeModel         a model folder that could run code or reach outside
│   └── CannotFetch         the hub, the network or the disk said no
├── NotFinite               a network whose numbers overflowed on the way
├── DatasetError            training data that is missing, damaged or unfit
├── TrainingError           a training run that cannot go on
├── MissingExtra            a part of the package whose libraries are not installed   exit 2
├── StoreError              the table of jobs
│   ├── StoreUnavailable    the database does not answer, or is busy, for now
│   └── StoreFull           the disk of the database is full
├── UnknownJob              an id that is not here, or is somebody else's   exit 2
├── Conflict                what a job in its state does not allow          exit 2
├── QuotaExceeded           more than a key may ask for
├── Forbidden               a key that may not do this
├── LeaseLost               a job that was taken away from its worker
├── Unreachable             a server that does not answer, or is none
├── Interrupted             a run stopped by a signal, its state saved      exit 130
└── Cancelled               a video given up by whoever asked for it        exit 130
"""

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class KinetographError(Exception):
    """The root of them all. `str()` is the message; `hint` is what one may do about it, or ""."""

    exit_code = 1  # what the command line leaves behind: 1 a failure, 2 a request that was wrong, 130 a stop

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by the constructor, whose arguments differ from class to class: errors cross process borders.
        return _revive, (type(self), self.args), self.__dict__


def _revive(kind: type[KinetographError], args: tuple[Any, ...]) -> KinetographError:
    error = kind.__new__(kind)
    error.args = args
    return error


class InvalidRequest(KinetographError):
    """A value that cannot be honoured. `field` names it; the hint gives the nearest legal value."""

    exit_code = 2

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class UnknownName(KinetographError):
    """A name that is not on its list. The hint gives the nearest spelling or, failing that, the list."""

    exit_code = 2

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = tuple(known)
        super().__init__(f"no {kind} is called {name!r}", hint=did_you_mean(name, known))
        self.kind, self.name, self.known = kind, name, known


def in_a_line(error: BaseException) -> str:
    """What an error of another library says, after its kind: one line, and no endless one."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known spelling; where nothing is near, all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(known)}" if known else "there are none"


class InvalidVideo(KinetographError):
    """An array or a rate that is not a video: wrong type, wrong rank, no frames, not what was asked for."""


class MediaError(KinetographError):
    """A file could not be written or read."""


class UnsupportedFormat(MediaError):
    """A container that this package does not know, or that cannot hold this video."""

    exit_code = 2


class OutputExists(MediaError):
    """The output is already there, and nobody said that it may be replaced."""

    exit_code = 2


class CannotWrite(MediaError):
    """The disk, the folder or the encoder refused. Nothing half-written is left behind.

    `full` is whether there was only no room, which passes when somebody makes some.
    """

    def __init__(self, message: str, *, hint: str = "", full: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.full = full

    @classmethod
    def because(cls, path: Path, error: OSError) -> "CannotWrite":
        """Translate an error of the operating system: what it said, of which folder, what to do."""
        said, full = error.strerror or str(error), error.errno in NO_ROOM
        hint = _WRITE_HINTS.get(error.errno or 0, "")
        return cls(f"cannot write {path}: {said} (folder {path.parent})", hint=hint, full=full)


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_WRITE_HINTS = {
    errno.ENOSPC: "the disk is full: free some space or write elsewhere",
    errno.EDQUOT: "the quota is used up: free some space or write elsewhere",
    errno.EROFS: "the disk is read-only: write elsewhere",
    errno.EACCES: "this user may not write into the folder: write elsewhere",
    errno.EPERM: "this user may not write into the folder: write elsewhere",
    errno.ENOENT: "the folder does not exist: make it first",
    errno.ENOTDIR: "part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


class CannotRead(MediaError):
    """The file is missing, truncated, damaged, too large to be opened safely, or not what its name says."""


class NoProvenance(MediaError):
    """The file does not say how it was made, or says it in a way that cannot be understood."""


class PluginError(KinetographError):
    """What another distribution put on a shelf cannot be loaded: the fault is theirs. The message names both."""


class WeightsError(KinetographError):
    """A checkpoint that is missing, damaged or unfit. The message names the file."""


class ModelMissing(WeightsError):
    """A pretrained model that is not, or not wholly, on this machine. The hint is the command that fetches it."""


class UnsafeModel(WeightsError):
    """A model folder that holds code, pickles or paths that lead out of it. Nothing of it was loaded."""


class CannotFetch(WeightsError):
    """A model could not be fetched: no such repository, no permission, no network, no room. What came is kept."""


class NotFinite(KinetographError):
    """A network said something that is no number: its weights are damaged, or its kind of numbers is too short."""


class DatasetError(KinetographError):
    """Data that is missing, damaged or unfit. The message names the file or the folder."""


class TrainingError(KinetographError):
    """A training run that cannot start or go on: a diverged loss, a recipe that does not fit the data."""


class MissingExtra(KinetographError):
    """A part of the package needs libraries that are not installed. The hint is the command that installs them."""

    exit_code = 2


class Unreachable(KinetographError):
    """A server does not answer, or what answers is no server of the kind that was asked for."""


class StoreError(KinetographError):
    """The table of jobs cannot be opened: damaged, of another version, no database at all."""


class StoreUnavailable(StoreError):
    """The database does not answer, or somebody keeps it locked. Later it may."""


class StoreFull(StoreError):
    """The disk on which the database lies is full."""


class UnknownJob(KinetographError):
    """No job has this id, as far as whoever asks may know."""

    exit_code = 2


class Conflict(KinetographError):
    """A job, in the state in which it is, does not allow what was asked. `code` names why, for programs."""

    exit_code = 2

    def __init__(self, message: str, *, code: str = "conflict", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class QuotaExceeded(KinetographError):
    """A key asked for more than it may. `retry_after` is in how many seconds it may ask again."""

    def __init__(self, message: str, *, retry_after: int = 60, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Forbidden(KinetographError):
    """A key that is valid, and may not do this."""


class LeaseLost(KinetographError):
    """A job was cancelled, deleted or given to another worker: what this one makes of it counts no more."""


class Interrupted(KinetographError):
    """A long run was stopped by a signal; the message says where its state was saved."""

    exit_code = 130


class Cancelled(KinetographError):
    """Raised by a progress callback to give a video up; the next step does not happen."""

    exit_code = 130

    def __init__(self, message: str = "cancelled", *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
