"""Clips of a world on disk, for training elsewhere: tar shards in the WebDataset layout, with a manifest that proves
them whole.

    dataset.write("circle", 100_000, "circles", split="train")
    for sample in dataset.load("circles"):
        sample.frames, sample.caption, sample.attributes

A clip is two files of a shard, `000000000.npz` and `000000000.json`. The npz holds `frames`, or, of a world that draws
in at most 256 colours, an `index` (t, h, w) and a `palette`: the frames, bit by bit, are `palette[index]`.

Every clip is a pure function of (seed, index), every shard of its plan: the same command writes the same bytes, in any
order, in any number of processes. While a data set is being written its folder holds `manifest.partial.json`, the list
of the shards that are finished; `manifest.json` comes last. What was interrupted is therefore continued by writing it
again.
"""

import hashlib
import io
import json
import math
import os
import signal
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from functools import cache, cached_property, lru_cache
from itertools import chain
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from pydantic_core import to_json

from kinetograph import __version__, media
from kinetograph.errors import CannotWrite, DatasetError, InvalidRequest, KinetographError, UnknownName
from kinetograph.media import Frames
from kinetograph.shelf import WORLDS

MANIFEST, PARTIAL, SHEET = "manifest.json", "manifest.partial.json", "contact_sheet.png"
SCHEMA = 2
FORMATS = ("npz", "mp4")
SPLITS = ("train", "heldout", "all")
MAX_COUNT = 10**9  # what nine digits of a clip's name can tell apart
SHARD = 1000  # clips in a shard, unless told otherwise
SHOWN, SHEET_FRAMES = 12, 10  # clips on the contact sheet, and at most so many frames of each
BLOCK, BLOCK_PIXELS = 128, 2**23  # at most so many clips are drawn together: fewer waste numpy's calls
WORTH_A_POOL = {"npz": 6_000, "mp4": 400}  # clips below which starting processes costs more than they save

OnProgress = Callable[[int, int], None]  # clips done, clips in all


def ignore(done: int, count: int) -> None:
    """The progress callback of whoever does not want to know."""


# --- the plan ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides what a data set contains, byte for byte. Sizes in pixels, `shard` in clips."""

    world: str
    split: str
    count: int
    seed: int
    format: str
    frames: int
    width: int
    height: int
    fps: int
    shard: int
    version: str = __version__

    def __post_init__(self) -> None:
        for kind, value, known in (("split", self.split, SPLITS), ("format", self.format, FORMATS)):
            if value not in known:
                raise UnknownName(kind, value, known)
        for name, low, high in (
            ("count", 1, MAX_COUNT),
            ("seed", 0, 2**63 - 1),
            ("frames", 1, 1000),
            ("shard", 1, 10**6),
        ):
            _check_range(name, getattr(self, name), low, high)
        for name in ("width", "height"):
            _check_range(name, side := getattr(self, name), 16, 1024)
            if self.format == "mp4" and side * self.enlarged % 2:
                hint = f"nearest: {side - 1} or {side + 1}; npz takes any size"
                raise InvalidRequest(f"{name} is {side}, and mp4 needs even sizes", field=name, hint=hint)

    @property
    def enlarged(self) -> int:
        """By what factor the clips are enlarged in their files."""
        return media.enlargement(self.width, self.height, f".{self.format}")

    @property
    def block(self) -> int:
        """How many clips are drawn together; the files do not depend on it."""
        return max(1, min(BLOCK, BLOCK_PIXELS // (self.frames * self.width * self.height)))

    @property
    def shards(self) -> int:
        """How many files the clips fill."""
        return -(-self.count // self.shard)

    def places(self, shard: int) -> range:
        """The numbers of the clips in one shard."""
        return range(shard * self.shard, min((shard + 1) * self.shard, self.count))

    def file(self, shard: int) -> str:
        """The name of one shard."""
        return f"{self.world}-{self.split}-{shard:06d}.tar"


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        near = min(max(value, low), high)
        raise InvalidRequest(f"{name} is {value}, not in {low} ... {high}", field=name, hint=f"nearest: {near}")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One finished file: its name, sha256, number of clips and bytes, and which of its clips belong to the held-out
    split.
    """

    file: str
    sha256: str
    clips: int
    bytes: int
    heldout: tuple[int, ...]


# --- writing ----------------------------------------------------------------------------------------------------------


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
) -> "Dataset":
    """Write `count` clips of a world into the folder `out`, or finish what an earlier call began there.

    `frames` and `size` (width, height) default to what the world is made for, `workers` to the number of processors.
    Shards that are finished are kept once their digest is checked; nothing that exists is replaced otherwise. Raises
    DatasetError where the folder holds anything else, UnknownName, InvalidRequest and CannotWrite.
    """
    module = WORLDS[world]
    width, height = size or (module.WIDTH, module.HEIGHT)
    clip = {"frames": frames or module.FRAMES, "width": width, "height": height, "fps": module.FPS}
    plan = Plan(world=world, split=split, count=count, seed=seed, format=format, shard=shard, **clip)
    folder = Path(out)
    try:
        _write(plan, folder, workers or os.cpu_count() or 1, on_progress)
    except OSError as error:
        raise CannotWrite.because(Path(error.filename or folder / MANIFEST), error) from error
    return load(folder)


def _write(plan: Plan, folder: Path, workers: int, on_progress: OnProgress) -> None:
    done = _continued(plan, folder)
    on_progress(sum(row.clips for row in done.values()), plan.count)
    missing = [number for number in range(plan.shards) if number not in done]
    if not missing and (folder / MANIFEST).exists():
        return
    _write_manifest(folder / PARTIAL, plan, done)
    with closing(_shards(plan, folder, missing, workers)) as made:  # whatever happens, its processes end before we do
        for number, row in made:
            done[number] = row
            _write_manifest(folder / PARTIAL, plan, done)
            on_progress(sum(row.clips for row in done.values()), plan.count)
    _write_sheet(plan, folder)
    _write_manifest(folder / MANIFEST, plan, done)
    (folder / PARTIAL).unlink()


def _continued(plan: Plan, folder: Path) -> dict[int, Shard]:
    """The finished shards in a folder that is empty or holds a part of this very data set; all else that was begun is
    removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = next((folder / name for name in (MANIFEST, PARTIAL) if (folder / name).is_file()), None)
    if found is None:
        leftovers = [path for path in folder.iterdir() if path.suffix != ".part"]
        if leftovers:
            hint = "choose an empty folder, or a new one"
            raise DatasetError(f"{folder} is not empty and holds no data set (there is {leftovers[0].name})", hint=hint)
        return {}
    begun, rows = _read_manifest(found)
    if begun != plan:
        differing = [f.name for f in fields(Plan) if getattr(begun, f.name) != getattr(plan, f.name)]
        said = ", ".join(f"{name} {getattr(begun, name)} there, {getattr(plan, name)} here" for name in differing)
        raise DatasetError(
            f"{folder} holds another data set: {said}", hint="choose another folder, or the same settings"
        )
    names = {plan.file(number): number for number in range(plan.shards)}
    kept = {names[row.file]: row for row in rows if row.file in names and _whole(folder, row)}
    for path in folder.iterdir():
        if path.suffix == ".part" or (path.name in names and names[path.name] not in kept):
            path.unlink()
    return kept


def _whole(folder: Path, row: Shard) -> bool:
    path = folder / row.file
    return path.is_file() and path.stat().st_size == row.bytes and _sha256(path) == row.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(path: Path, plan: Plan, done: Mapping[int, Shard]) -> None:
    rows = [asdict(done[number]) for number in sorted(done)]
    text = json.dumps({"kinetograph_dataset": SCHEMA, **asdict(plan), "shards": rows}, indent=1)
    _replace(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def _replace(path: Path, fill: Callable[[Path], object]) -> None:
    """Write a file under a temporary name, flush it and rename it; leave nothing behind when that fails."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        fill(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # a keyboard interrupt must not leave a file behind either
        temporary.unlink(missing_ok=True)
        raise


def _write_sheet(plan: Plan, folder: Path) -> None:
    world = WORLDS[plan.world]
    clips = _described(world, plan, range(min(SHOWN, plan.count)))
    apart, coarse = -(-plan.frames // SHEET_FRAMES), -(-max(plan.width, plan.height) // media.SMALL)
    frames = [next(_drawn(world, plan, [clip]))[::apart, ::coarse, ::coarse] for clip in clips]
    media.write_contact_sheet(folder / SHEET, frames, [f"{clip.caption}   [{clip.split}]" for clip in clips], scale=1)


# --- processes --------------------------------------------------------------------------------------------------------


def _shards(plan: Plan, folder: Path, numbers: Sequence[int], workers: int) -> Generator[tuple[int, Shard], None, None]:
    """Make these shards, in this process or in several, and yield each as it is finished."""
    helpers = min(workers, len(numbers)) - 1
    if helpers < 1 or len(numbers) * plan.shard < WORTH_A_POOL[plan.format]:
        yield from ((number, write_shard(plan, number, folder)) for number in numbers)
        return
    spawn = get_context("spawn")
    stop = spawn.Event()
    with ThreadPoolExecutor(1) as here, ProcessPoolExecutor(helpers, spawn, _obey, (stop,)) as there:
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
            for clips, packed in _packed(plan, plan.places(number)):
                if given_up():
                    raise KeyboardInterrupt
                heldout.extend(clip.place for clip in clips if clip.split == "heldout")
                file.write(packed)
                digest.update(packed)
            file.write(TAR_END)
            digest.update(TAR_END)

    _replace(path, fill)
    size = path.stat().st_size
    return Shard(
        file=path.name, sha256=digest.hexdigest(), clips=len(plan.places(number)), bytes=size, heldout=tuple(heldout)
    )


# --- chance -----------------------------------------------------------------------------------------------------------

ROW = 64  # numbers drawn beforehand for each clip: hardly any asks for more
ROWS = 2**32 - 1  # a place that no clip has: where those numbers come from


class Source:
    """The random source of one clip: to a world, a numpy Generator.

    What worlds mostly ask for, one number at a time, comes from a row that was drawn for many clips at once, in a tenth
    of the time of numpy's own call. All else comes from a Generator of the clip's own.
    """

    def __init__(self, seed: int, place: int, row: Sequence[float]) -> None:
        self._key, self._row = (seed, place), iter(row)

    def random(self, size: Any = None) -> Any:
        """As `Generator.random`."""
        drawn = next(self._row, None) if size is None else None
        return self._own.random(size) if drawn is None else drawn

    def integers(self, low: int, high: int | None = None, size: Any = None) -> Any:
        """As `Generator.integers`."""
        if high is not None or size is not None:
            return self._own.integers(low, high, size)
        drawn = next(self._row, None)
        return int(low * (self._own.random() if drawn is None else drawn))

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> Any:
        """As `Generator.uniform`."""
        return low + (high - low) * self.random(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    @cached_property
    def _own(self) -> np.random.Generator:
        return np.random.Generator(_stream(*self._key))


def _stream(seed: int, place: int) -> np.random.Philox:
    # By spawn key: a list of whole numbers is filled up with zeros, so that [seed, place] would be [seed, place, 0], a
    # key that training draws its clips by.
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=(place,)))


def source(seed: int, place: int) -> Source:
    """The random source of one clip."""
    return sources(seed, range(place, place + 1))[0]


def sources(seed: int, places: range) -> list[Source]:
    """The random sources of successive clips: whichever shards are made, and wherever, each gets the same numbers."""
    numbers = _stream(seed, ROWS)
    numbers.advance(places.start * ROW // 4)  # it makes four numbers at each step
    rows = np.random.Generator(numbers).random((len(places), ROW)).tolist()
    return [Source(seed, place, row) for place, row in zip(places, rows, strict=True)]


# --- clips ------------------------------------------------------------------------------------------------------------


class Described(NamedTuple):
    """A clip before it is drawn: its number, its scene, and what is said of it."""

    place: int
    scene: Any
    caption: str
    split: str


def _described(world: ModuleType, plan: Plan, places: range) -> list[Described]:
    clips = []
    for place, rng in zip(places, sources(plan.seed, places), strict=True):
        scene = world.sample(rng, split=plan.split)
        split = "heldout" if world.heldout(scene) else "train"
        clips.append(Described(place, scene, world.caption(scene, rng), split))
    return clips


def _drawn(world: ModuleType, plan: Plan, clips: Sequence[Described]) -> Iterator[Frames]:
    """The frames (t, h, w, 3) of each clip."""
    scenes, size = [clip.scene for clip in clips], (plan.frames, plan.height, plan.width)
    if not hasattr(world, "stamps"):
        return iter(world.draw(scenes, *size))
    planes = _index([*world.stamps(scenes, *size)], len(clips), *size)
    return (world.shades(scene)[plane] for scene, plane in zip(scenes, planes, strict=True))


def _packed(plan: Plan, places: range) -> Iterator[tuple[list[Described], bytes]]:
    """Blocks of clips, each clip as its two members of the tar file, padded and ready to be written."""
    world = WORLDS[plan.world]
    pack = _mp4s if plan.format == "mp4" else _indexed_npzs if hasattr(world, "stamps") else _npzs
    for start in range(0, len(places), plan.block):
        clips = _described(world, plan, places[start : start + plan.block])
        parts: list[bytes] = []
        for clip, packed in zip(clips, pack(world, plan, clips), strict=True):
            key, said = f"{clip.place:09d}", to_json(_said(world, plan, clip))  # json takes six times as long
            parts += (*_tar_member(f"{key}.{plan.format}", packed), *_tar_member(f"{key}.json", said))
        yield clips, b"".join(parts)


def _said(world: ModuleType, plan: Plan, clip: Described) -> dict[str, Any]:
    attributes = world.attributes(clip.scene)
    unsaid = {name: value for name, value in vars(clip.scene).items() if name not in attributes}
    return {
        "caption": clip.caption,
        "attributes": attributes,
        "split": clip.split,
        "world": plan.world,
        "seed": [plan.seed, clip.place],
        "fps": plan.fps,
        "frames": plan.frames,
        "size": [plan.width, plan.height],
        "scene": {name: getattr(value, "__dict__", value) for name, value in unsaid.items()},
    }


def _mp4s(world: ModuleType, plan: Plan, clips: Sequence[Described]) -> Iterator[bytes]:
    for frames in _drawn(world, plan, clips):
        yield _mp4(frames, plan)


def _mp4(frames: Frames, plan: Plan) -> bytes:
    note = media.Note(fps=Fraction(plan.fps), frames=plan.frames, enlarged=plan.enlarged)
    # Not in the data set's own folder, and not flushed to the disk: it is read at once.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        media.FORMATS[".mp4"].write(path, frames, note)
        return path.read_bytes()


# --- npz --------------------------------------------------------------------------------------------------------------

# Written by hand: zipfile takes longer over one clip than drawing it does.

MEMORY = 6  # of 9: a smaller table of hashes, which stays in the cache; a quarter faster, no larger


def _npzs(world: ModuleType, plan: Plan, clips: Sequence[Described]) -> Iterator[bytes]:
    """Clips as `numpy.load` and `Video.load` read them: the zip file of media's npz, deflated as fast as zlib can."""
    header, others = _npy_header((plan.frames, plan.height, plan.width, 3)), _opening(plan.fps, plan.frames)
    for frames in _drawn(world, plan, clips):
        packer, data = zlib.compressobj(1, zlib.DEFLATED, -15, MEMORY), frames.data.cast("B")
        packed = packer.compress(header) + packer.compress(data) + packer.flush()
        crc = zlib.crc32(data, zlib.crc32(header))
        yield _zip(others, ZipMember("frames.npy", packed, crc, len(header) + len(data)))


def _indexed_npzs(world: ModuleType, plan: Plan, clips: Sequence[Described]) -> Iterator[bytes]:
    """Clips of a world that stamps, as `numpy.load` reads them: their frames are `palette[index]`."""
    scenes, size = [clip.scene for clip in clips], (plan.frames, plan.height, plan.width)
    header, stamps = _npy_header(size), [*world.stamps(scenes, *size)]
    planes, streams = _index(stamps, len(clips), *size), _deflated(header, stamps, len(clips), *size)
    for scene, plane, stream in zip(scenes, planes, streams, strict=True):
        others = _opening(plan.fps, plan.frames, world.shades(scene).tobytes())
        crc = zlib.crc32(plane, zlib.crc32(header))
        yield _zip(others, ZipMember("index.npy", stream, crc, len(header) + plane.nbytes))


@cache
def _npy_header(shape: tuple[int, ...]) -> bytes:
    return _npy(np.empty(shape, np.uint8))[: -math.prod(shape)]


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


# --- stamps -----------------------------------------------------------------------------------------------------------

Stamps = Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]  # what a world's `stamps` yields: clips, corners, patches


def _index(stamps: Stamps, b: int, t: int, h: int, w: int) -> Frames:
    """The patches in their places: (b, t, h, w) uint8, numbers of colours."""
    planes = np.zeros((b, t, h, w), np.uint8)
    for which, corners, patches in stamps:
        windows = np.lib.stride_tricks.sliding_window_view(planes, patches.shape[2:], (2, 3), writeable=True)
        windows[which[:, None], np.arange(t), corners[..., 1], corners[..., 0]] = patches
    return planes


# An index is runs of zeros with the rows of patches between them, and deflate can say just that: runs it packs, stored
# blocks are bytes as they are. zlib, which does not know, looks for more: a fifth of the size in seven times the time.
# Where it is told to finish a run at a byte it adds an empty stored block, which ends in its length, b"\0\0\xff\xff".
# With another length there, the same block holds the row that follows.

LENGTH, END = 4, b"\3\0"  # the bytes of a stored block's length; the last block, empty


def _deflated(header: bytes, stamps: Stamps, b: int, t: int, h: int, w: int) -> list[bytes]:
    """The header and the index of each clip, deflated. Each of a clip's frames has one patch."""
    streams, opening = [b""] * b, _zeros(0)[:-LENGTH] + _length(len(header)) + header
    for which, corners, patches in stamps:
        p, q = patches.shape[2:]
        begins = corners @ (1, w) + np.arange(t) * (h * w)  # (n, t): a patch's first place in the clip's bytes
        ends = begins + (p - 1) * w + q
        gaps = np.pad(begins, ((0, 0), (0, 1)), constant_values=t * h * w) - np.pad(ends, ((0, 0), (1, 0)))
        downs, rights = (part.tolist() for part in np.divmod(gaps, w))  # apart, as few enough different runs to keep
        for clip, down, right, rows in zip(which.tolist(), downs, rights, _rows(patches, w).tolist(), strict=True):
            runs = ([_zeros(n * w) for n in down], [_zeros(n)[:-LENGTH] for n in right])
            last = (_zeros(down[-1] * w), _zeros(right[-1]), END)
            streams[clip] = b"".join((opening, *chain.from_iterable(zip(*runs, rows)), *last))
    return streams


def _rows(patches: np.ndarray, w: int) -> np.ndarray:
    """The rows of each patch and the runs between them, (n, t) bytes, from the length of the first row."""
    n, t, p, q = patches.shape
    between = np.frombuffer(_zeros(w - q)[:-LENGTH] + _length(q), np.uint8)
    rows = np.empty((n, t, p, len(between) + q), np.uint8)
    rows[..., : len(between)], rows[..., len(between) :] = between, patches
    packed = rows.reshape(n, t, -1)[..., len(between) - LENGTH :]
    return packed.view(f"V{packed.shape[-1]}")[..., 0]


@lru_cache(4096)
def _zeros(n: int) -> bytes:
    """A run of n zeros, and an empty stored block."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, strategy=zlib.Z_FIXED)
    return packer.compress(bytes(n)) + packer.flush(zlib.Z_SYNC_FLUSH)


def _length(n: int) -> bytes:
    return struct.pack("<2H", n, n ^ 0xFFFF)


# --- zip and tar ------------------------------------------------------------------------------------------------------

# Every date is the earliest that the format knows, so that the same clips are the same bytes.

ZIP_DATE = 0x21  # 1 January 1980
TAR_OWNER, TAR_DATE = b"0000644\0" + b"0000000\0" * 2, b"%011o\0" % 0
TAR_BELOW = (b"0" + bytes(100) + b"ustar\x0000").ljust(356, b"\0")
TAR_SUM = sum(TAR_OWNER + TAR_DATE + TAR_BELOW) + 8 * 0x20  # its own place counts as spaces
TAR_END = bytes(1024)


class ZipMember(NamedTuple):
    """A file inside a zip file: its deflated `data`, and the crc and size of what that unpacks to."""

    name: str
    data: bytes
    crc: int
    size: int


class Opening(NamedTuple):
    """A zip file that lacks its last member: the others, their entries in the directory, and how many they are."""

    members: bytes = b""
    entries: bytes = b""
    number: int = 0


def _zip(others: Opening, last: ZipMember) -> bytes:
    begins = len(others.members)
    head, entry = _heads(last, begins)
    where = begins + len(head) + len(last.data), len(others.entries) + len(entry)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, others.number + 1, others.number + 1, *where[::-1], 0)
    return b"".join((others.members, head, last.data, others.entries, entry, end))


def _heads(m: ZipMember, begins: int) -> tuple[bytes, bytes]:
    """What stands before a member, and its entry in the directory."""
    name = m.name.encode()
    facts = struct.pack("<5H3L2H", 20, 0, zipfile.ZIP_DEFLATED, 0, ZIP_DATE, m.crc, len(m.data), m.size, len(name), 0)
    return b"PK\x03\x04" + facts + name, b"PK\x01\x02\x14\0" + facts + struct.pack("<3H2L", 0, 0, 0, 0, begins) + name


@lru_cache(1024)
def _opening(fps: int, frames: int, palette: bytes = b"") -> Opening:
    """The members that many clips have in common: the rate, the note, and the palette if there is one."""
    note = media.Note(fps=Fraction(fps), frames=frames)
    arrays = {"fps": np.array([fps, 1], np.int64), "metadata": np.array(note.text())}
    if palette:
        arrays["palette"] = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    opening = Opening()
    for name, data in ((name, _npy(array)) for name, array in arrays.items()):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(data) + packer.flush()
        head, entry = _heads(ZipMember(f"{name}.npy", packed, zlib.crc32(data), len(data)), len(opening.members))
        opening = Opening(opening.members + head + packed, opening.entries + entry, opening.number + 1)
    return opening


def _tar_member(name: str, data: bytes) -> tuple[bytes, ...]:
    """One file of a tar archive (POSIX ustar): header, content, padding."""
    title, size = name.encode(), b"%011o\0" % len(data)
    checksum = b"%06o\0 " % (TAR_SUM + sum(title) + sum(size))
    return title.ljust(100, b"\0"), TAR_OWNER, size, TAR_DATE, checksum, TAR_BELOW, data, bytes(-len(data) % 512)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sample:
    """One clip: `frames` uint8 (t, h, w, 3), its caption, its attributes, its rate, its split, and the rest of what its
    file says.
    """

    frames: Frames
    caption: str
    attributes: Mapping[str, str]
    fps: int
    split: str
    said: Mapping[str, Any]


class Dataset(Sequence[Sample]):
    """The clips of a folder, read when they are asked for. `places` are the numbers of those that are in view."""

    def __init__(self, folder: Path, plan: Plan, shards: Sequence[Shard], places: Sequence[int]) -> None:
        self.folder, self.plan, self.shards, self.places = folder, plan, tuple(shards), places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...

    def __getitem__(self, index: int | slice) -> "Sample | Dataset":
        if isinstance(index, slice):
            return Dataset(self.folder, self.plan, self.shards, self.places[index])
        return self._read(self.places[index])

    @property
    def splits(self) -> dict[str, int]:
        """How many of the clips in view belong to each split."""
        heldout = sum(place in self._heldout for place in self.places)
        return {"train": len(self) - heldout, "heldout": heldout}

    def only(self, split: Literal["train", "heldout"]) -> "Dataset":
        """The clips of one split. Raises UnknownName."""
        if split not in ("train", "heldout"):
            raise UnknownName("split", split, ("train", "heldout"))
        places = [place for place in self.places if (place in self._heldout) == (split == "heldout")]
        return Dataset(self.folder, self.plan, self.shards, places)

    def verify(self) -> None:
        """Compare every shard with its sha256. Raises DatasetError, which names the first that differs."""
        for row in self.shards:
            if _sha256(_present(self.folder, row)) != row.sha256:
                raise _damaged(self.folder / row.file, "its sha256 is not what the manifest says")

    def __repr__(self) -> str:
        return f"<{len(self)} clips of the {self.plan.world} world in {self.folder}>"

    @cached_property
    def _heldout(self) -> frozenset[int]:
        return frozenset(place for row in self.shards for place in row.heldout)

    def _read(self, place: int) -> Sample:
        path, key = self.folder / self.shards[place // self.plan.shard].file, f"{place:09d}"
        try:
            index = _members(path)
            with path.open("rb") as file:
                said = json.loads(_content(file, index[f"{key}.json"]))
                frames = _frames(_content(file, index[f"{key}.{self.plan.format}"]), self.plan)
            return Sample(frames, said["caption"], said["attributes"], said["fps"], said["split"], said)
        except (*media.DECODING_ERRORS, tarfile.TarError, KinetographError) as error:
            raise _damaged(path, f"clip {key} cannot be read ({error})") from error


def load(path: str | os.PathLike[str], *, verify: bool = False) -> Dataset:
    """Open a data set that `write` wrote: a sequence of samples, read as they are asked for.

    Raises DatasetError for a folder that is unfinished or altered, and names the shard. Sizes are always compared,
    digests only with `verify`.
    """
    folder = Path(path)
    if not (folder / MANIFEST).is_file():
        unfinished = (folder / PARTIAL).is_file()
        again = "finish it: write it again with the same settings"
        hint = again if unfinished else f"its folder would hold a {MANIFEST}"
        raise DatasetError(f"{folder} is {'unfinished' if unfinished else 'no data set'}", hint=hint)
    plan, shards = _read_manifest(folder / MANIFEST)
    if [row.file for row in shards] != [plan.file(number) for number in range(plan.shards)]:
        raise DatasetError(f"{folder / MANIFEST} does not list every shard", hint="write the data set again")
    for row in shards:
        _present(folder, row)
    found = Dataset(folder, plan, shards, range(plan.count))
    if verify:
        found.verify()
    return found


def _read_manifest(path: Path) -> tuple[Plan, list[Shard]]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["kinetograph_dataset"] != SCHEMA:
            raise ValueError(f"its schema is {said['kinetograph_dataset']}, this version reads {SCHEMA}")
        plan = Plan(**{f.name: said[f.name] for f in fields(Plan)})
        return plan, [replace(Shard(**row), heldout=tuple(row["heldout"])) for row in said["shards"]]
    except (OSError, ValueError, LookupError, TypeError, KinetographError) as error:
        hint = "write the data set again into another folder"
        raise DatasetError(f"{path} cannot be read: {error}", hint=hint) from error


def _present(folder: Path, row: Shard) -> Path:
    path = folder / row.file
    if not path.is_file():
        raise _damaged(path, "it is missing")
    if path.stat().st_size != row.bytes:
        raise _damaged(path, f"it has {path.stat().st_size} bytes and should have {row.bytes}")
    return path


def _damaged(path: Path, fact: str) -> DatasetError:
    hint = "write the data set again with the same settings: only this shard is redone"
    return DatasetError(f"the shard {path} is damaged: {fact}", hint=hint)


@lru_cache(64)  # shards: some thousand names each
def _members_at(path: Path, stamp: tuple[int, int]) -> dict[str, tuple[int, int]]:
    with tarfile.open(path, "r:") as file:
        return {member.name: (member.offset_data, member.size) for member in file}


def _members(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of each file in a shard; looked up anew when the shard was replaced."""
    facts = path.stat()
    return _members_at(path.resolve(), (facts.st_mtime_ns, facts.st_size))


def _content(file: io.BufferedReader, where: tuple[int, int]) -> bytes:
    offset, size = where
    file.seek(offset)
    return file.read(size)


def _frames(data: bytes, plan: Plan) -> Frames:
    if plan.format == "mp4":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            path.write_bytes(data)
            clip = media.read(path)
            frames = media.reduced(clip.frames, clip.enlarged)
    else:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            frames = arrays["palette"][arrays["index"]] if "index" in arrays else arrays["frames"]
    if frames.shape != (plan.frames, plan.height, plan.width, 3):
        raise ValueError(f"its frames are {frames.shape}")
    return frames
