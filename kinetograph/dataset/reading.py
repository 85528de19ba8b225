"""Reading a data set back, a clip at a time."""

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from kinetograph import files, media
from kinetograph.dataset.plan import MANIFEST, PARTIAL, Plan, Shard, read_manifest
from kinetograph.errors import DatasetError, KinetographError, UnknownName
from kinetograph.media import Frames


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
            if files.sha256(_present(self.folder, row)) != row.sha256:
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
    plan, shards = read_manifest(folder / MANIFEST)
    if [row.file for row in shards] != [plan.file(number) for number in range(plan.shards)]:
        raise DatasetError(f"{folder / MANIFEST} does not list every shard", hint="write the data set again")
    for row in shards:
        _present(folder, row)
    found = Dataset(folder, plan, shards, range(plan.count))
    if verify:
        found.verify()
    return found


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
