"""Writing a data set: shard by shard, in one process or several, to be continued wherever it was interrupted."""

import hashlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import fields
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Event
from pathlib import Path

from kinetograph import files, media
from kinetograph.dataset.archives import TAR_END
from kinetograph.dataset.clips import describe, draw
from kinetograph.dataset.packing import pack
from kinetograph.dataset.plan import (
    MANIFEST,
    PARTIAL,
    SHARD,
    SHEET,
    OnProgress,
    Plan,
    Shard,
    ignore,
    read_manifest,
    write_manifest,
)
from kinetograph.dataset.reading import Dataset, load
from kinetograph.errors import CannotWrite, DatasetError, InvalidRequest
from kinetograph.shelf import WORLDS

SHOWN, SHEET_FRAMES = 12, 10  # clips on the contact sheet, and at most so many frames of each
WORTH_A_POOL = {"npz": 6_000, "mp4": 400}  # clips below which starting processes costs more than they save


def write(
    world: str,
    count: int,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    format: str = "npz",
    shard: int = SHARD,
    split: str = "train",
    workers: int | None = None,
    on_progress: OnProgress = ignore,
) -> Dataset:
    """Write `count` clips of a world into the folder `out`, or finish what an earlier call began there.

    `frames` and `size` (width, height) default to what the world is made for, `workers` to the number of processors.
    Shards that are finished are kept once their digest is checked; nothing that exists is replaced otherwise. Raises
    DatasetError where the folder holds anything else, UnknownName, InvalidRequest and CannotWrite.
    """
    module = WORLDS[world]
    width, height = (module.WIDTH, module.HEIGHT) if size is None else size
    long = module.FRAMES if frames is None else frames
    clip = {"frames": long, "width": width, "height": height, "fps": module.FPS}
    plan = Plan(world=world, split=split, count=count, seed=seed, format=format, shard=shard, **clip)
    folder, helpers = Path(out), (os.cpu_count() or 1) if workers is None else workers
    if helpers < 1:
        raise InvalidRequest(f"workers is {helpers}, less than one", field="workers", hint="nearest: 1")
    try:
        _write(plan, folder, helpers, on_progress)
    except OSError as error:
        raise CannotWrite.because(Path(error.filename or folder / MANIFEST), error) from error
    except BrokenExecutor as error:
        hint = "give it fewer --workers; a script that calls this must be guarded by `if __name__ == '__main__':`"
        raise DatasetError("a process that was writing shards ended before its work", hint=hint) from error
    return load(folder)


def _write(plan: Plan, folder: Path, workers: int, on_progress: OnProgress) -> None:
    done = _continued(plan, folder)
    on_progress(sum(row.clips for row in done.values()), plan.count)
    missing = [number for number in range(plan.shards) if number not in done]
    if not missing and (folder / MANIFEST).exists():
        return
    write_manifest(folder / PARTIAL, plan, done)
    with closing(_shards(plan, folder, missing, workers)) as made:  # whatever happens, its processes end before we do
        for number, row in made:
            done[number] = row
            write_manifest(folder / PARTIAL, plan, done)
            on_progress(sum(row.clips for row in done.values()), plan.count)
    _write_sheet(plan, folder)
    write_manifest(folder / MANIFEST, plan, done)
    (folder / PARTIAL).unlink()


def _continued(plan: Plan, folder: Path) -> dict[int, Shard]:
    """The finished shards in a folder that is empty or holds a part of this very data set; all else that was begun is
    removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = next((folder / name for name in (MANIFEST, PARTIAL) if (folder / name).is_file()), None)
    if found is None:
        leftovers = [path for path in folder.iterdir() if path.name not in _temporary(plan)]
        if leftovers:
            hint = "choose an empty folder, or a new one"
            raise DatasetError(f"{folder} is not empty and holds no data set (there is {leftovers[0].name})", hint=hint)
        return {}
    begun, rows = read_manifest(found)
    if begun != plan:
        differing = [f.name for f in fields(Plan) if getattr(begun, f.name) != getattr(plan, f.name)]
        said = ", ".join(f"{name} {getattr(begun, name)} there, {getattr(plan, name)} here" for name in differing)
        raise DatasetError(
            f"{folder} holds another data set: {said}", hint="choose another folder, or the same settings"
        )
    names = {plan.file(number): number for number in range(plan.shards)}
    kept = {names[row.file]: row for row in rows if row.file in names and _whole(folder, row)}
    for path in folder.iterdir():
        if path.name in _temporary(plan) or (path.name in names and names[path.name] not in kept):
            path.unlink()
    return kept


def _temporary(plan: Plan) -> set[str]:
    """The names under which a run that was killed may have left something half-written."""
    return {f".{name}.part" for name in (MANIFEST, PARTIAL, SHEET, *map(plan.file, range(plan.shards)))}


def _whole(folder: Path, row: Shard) -> bool:
    path = folder / row.file
    return path.is_file() and path.stat().st_size == row.bytes and files.sha256(path) == row.sha256


def _write_sheet(plan: Plan, folder: Path) -> None:
    world = WORLDS[plan.world]
    clips = describe(world, plan, range(min(SHOWN, plan.count)))
    apart, coarse = -(-plan.frames // SHEET_FRAMES), -(-max(plan.width, plan.height) // media.SMALL)
    frames = [next(draw(world, plan, [clip]))[::apart, ::coarse, ::coarse] for clip in clips]
    media.write_contact_sheet(folder / SHEET, frames, [f"{clip.caption}   [{clip.split}]" for clip in clips], scale=1)


# --- processes --------------------------------------------------------------------------------------------------------


def _shards(plan: Plan, folder: Path, numbers: Sequence[int], workers: int) -> Generator[tuple[int, Shard], None, None]:
    """Make these shards, in this process or in several, and yield each as it is finished."""
    helpers = min(workers, len(numbers)) - 1
    if helpers < 1 or len(numbers) * plan.shard < WORTH_A_POOL[plan.format]:
        yield from ((number, write_shard(plan, number, folder)) for number in numbers)
        return
    context = _context()
    stop = context.Event()
    with ThreadPoolExecutor(1) as here, ProcessPoolExecutor(helpers, context, _obey, (stop,)) as there:
        waiting: dict[Future[Shard], int] = {
            there.submit(_write_shard, plan, number, folder): number for number in numbers
        }
        own: Future[Shard] | None = None
        try:
            while waiting:
                if own not in waiting and (taken := next((f for f in reversed(waiting) if f.cancel()), None)):
                    # This process works too, on what no other has begun: those take a while to start.
                    number = waiting.pop(taken)
                    waiting[own := here.submit(write_shard, plan, number, folder, stop.is_set)] = number
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        finally:  # after an error, Ctrl-C, or a caller who wants no more
            stop.set()
            there.shutdown(cancel_futures=True)


def _context() -> BaseContext:
    """How processes begin: by a fork, at once, where nothing else runs in this one that a fork would tear apart."""
    alone = threading.active_count() == 1 and "torch" not in sys.modules  # whose threads are not counted
    return get_context("fork" if alone and sys.platform == "linux" else "spawn")


_stop: Event | None = None  # in a worker process: set when its work is no longer wanted


def _obey(stop: Event) -> None:
    """Prepare a worker: Ctrl-C reaches every process of a terminal, but the first one decides what it means."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write_shard(plan: Plan, number: int, folder: Path) -> Shard:
    return write_shard(plan, number, folder, lambda: bool(_stop and _stop.is_set()))


def write_shard(plan: Plan, number: int, folder: Path, given_up: Callable[[], bool] = lambda: False) -> Shard:
    """Write one shard of a plan, which needs no other; `given_up` is asked between blocks of clips.

    Raises KeyboardInterrupt once it is given up, and then leaves nothing behind.
    """
    path, digest = folder / plan.file(number), hashlib.sha256()
    heldout: list[int] = []

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for clips, packed in pack(plan, plan.places(number)):
                if given_up():
                    raise KeyboardInterrupt
                heldout.extend(clip.place for clip in clips if clip.split == "heldout")
                file.write(packed)
                digest.update(packed)
            file.write(TAR_END)
            digest.update(TAR_END)

    files.fill(path, fill)
    size = path.stat().st_size
    return Shard(
        file=path.name, sha256=digest.hexdigest(), clips=len(plan.places(number)), bytes=size, heldout=tuple(heldout)
    )
