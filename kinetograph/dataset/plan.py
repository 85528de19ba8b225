"""What a data set contains, byte for byte, and the manifest that says so."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from kinetograph import __version__, files, media
from kinetograph.attributes import SPLITS
from kinetograph.errors import DatasetError, InvalidRequest, KinetographError, UnknownName

MANIFEST, PARTIAL, SHEET = "manifest.json", "manifest.partial.json", "contact_sheet.png"
SCHEMA = 2
FORMATS = ("npz", "mp4")
MAX_COUNT = 10**9  # what nine digits of a clip's name can tell apart
SHARD = 1000  # clips in a shard, unless told otherwise
BLOCK, BLOCK_PIXELS = 128, 2**23  # at most so many clips are drawn together: fewer waste numpy's calls

OnProgress = Callable[[int, int], None]  # clips done, clips in all


def ignore(done: int, count: int) -> None:
    """The progress callback of whoever does not want to know."""


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


# --- the manifest ---


def write_manifest(path: Path, plan: Plan, done: Mapping[int, Shard]) -> None:
    """Write the plan and the shards that are finished, by number."""
    rows = [asdict(done[number]) for number in sorted(done)]
    text = json.dumps({"kinetograph_dataset": SCHEMA, **asdict(plan), "shards": rows}, indent=1)
    files.write(path, text + "\n")


def read_manifest(path: Path) -> tuple[Plan, list[Shard]]:
    """The plan and the finished shards of a manifest. Raises DatasetError for one that cannot be understood."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["kinetograph_dataset"] != SCHEMA:
            raise ValueError(f"its schema is {said['kinetograph_dataset']}, this version reads {SCHEMA}")
        plan = Plan(**{f.name: said[f.name] for f in fields(Plan)})
        return plan, [replace(Shard(**row), heldout=tuple(row["heldout"])) for row in said["shards"]]
    except (OSError, ValueError, LookupError, TypeError, KinetographError) as error:
        hint = "write the data set again into another folder"
        raise DatasetError(f"{path} cannot be read: {error}", hint=hint) from error
