"""Diffusion made visible: pictures, short clips and measured curves, each with its numbers beside it.

    explain("forward", "out", prompt="a large red circle moving right")
    explain("steps", "out", engine="zero", count=48)

docs/diffusion.md tells the story that they illustrate.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kinetograph.engine import OnProgress, ignore
from kinetograph.errors import CannotWrite, InvalidRequest, OutputExists, UnknownName, did_you_mean
from kinetograph.explaining import forward, measured, reverse, schedule


@dataclass(frozen=True)
class Topic:
    """One thing that can be shown: the names of its files, and what fills them, given their paths in this order."""

    files: tuple[str, ...]
    show: Callable[..., None]

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of what it can be told."""
        parameters = inspect.signature(self.show).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "on_progress")


TOPICS = {
    "forward": Topic(("forward.png", "forward.mp4"), forward.show),
    "reverse": Topic(("reverse.png", "reverse.mp4"), reverse.show),
    "schedule": Topic(("schedule.png", "schedule.csv"), schedule.show),
    "steps": Topic(
        ("steps.png", "steps-sheet.png", "steps.csv", "steps.json"),
        partial(measured.show, "steps", values=measured.STEPS),
    ),
    "guidance": Topic(
        ("guidance.png", "guidance-sheet.png", "guidance.csv", "guidance.json"),
        partial(measured.show, "guidance", values=measured.GUIDANCE),
    ),
}


def explain(
    what: str,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
    **settings: Any,
) -> tuple[Path, ...]:
    """Show one of TOPICS: write its files into the folder `out`, which is made, and give back where they are.

    The settings are those of the function in the table. Raises UnknownName, InvalidRequest for a setting that it
    does not have, OutputExists for a file that is there already, CannotWrite, and what engines raise.
    """
    if what not in TOPICS:
        raise UnknownName("explanation", what, TOPICS)
    topic = TOPICS[what]
    for name in settings:
        if name not in topic.settings:
            hint = did_you_mean(name, topic.settings)
            raise InvalidRequest(f"the explanation {what!r} has no setting {name!r}", field=name, hint=hint)
    targets = tuple(Path(out) / name for name in topic.files)
    with _room(Path(out), targets, overwrite):
        topic.show(*targets, on_progress=on_progress, **settings)
    return targets


@contextmanager
def _room(folder: Path, targets: tuple[Path, ...], overwrite: bool) -> Iterator[None]:
    """The folder, made where it was missing, and gone again where nothing came into it."""
    there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite.because(targets[0], error) from error
    _check(folder, targets, overwrite)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if not there:
                folder.rmdir()  # refuses where there is anything in it
        raise


def _check(folder: Path, targets: tuple[Path, ...], overwrite: bool) -> None:
    """Refuse now what could not be written later."""
    if not os.access(folder, os.W_OK):
        raise CannotWrite(f"cannot write into {folder}: this user may not", hint="write elsewhere")
    for target in targets:
        if os.path.lexists(target) and not (overwrite and target.is_file()):
            raise OutputExists(f"{target} is already there", hint="choose another folder, or replace it with --force")
