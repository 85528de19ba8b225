"""The archive: finished videos and how they were made, on disk; and the frames that others go on from.

    archive/videos/1f/1f0c.../    video.mp4  thumbnail.webp  spritesheet.jpg  entry.json
    archive/uploads/77aa....png   what somebody sent, decoded and written anew

An entry is made under a temporary name and then renamed: it is whole or not there. Names are random, so that nobody who
may ask for one can guess another, and two workers that make the same video never write to the same place. Several
machines may share one archive over a network file system.
"""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kinetograph import credentials, files, media
from kinetograph.credentials import Certificate
from kinetograph.errors import CannotRead, CannotWrite
from kinetograph.media import Frames
from kinetograph.video import Video

NAME = re.compile(r"[0-9a-f]{32}")
UPLOAD = re.compile(r"[0-9a-f]{32}\.(png|npz|mp4)")
THUMBNAIL, TILE, TILES, COLUMNS = 512, 256, 16, 4  # pixels, pixels, pictures, pictures
MAX_AGE = 3600.0  # seconds that something may lie about without belonging to anything


@dataclass(frozen=True)
class Entry:
    """One finished video: a folder with its files, and the facts about it."""

    folder: Path
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name in the archive."""
        return self.folder.name

    @property
    def video(self) -> Path:
        """The clip, an mp4 with its provenance inside."""
        return self.folder / "video.mp4"

    @property
    def thumbnail(self) -> Path:
        """Its middle frame, a webp."""
        return self.folder / "thumbnail.webp"

    @property
    def spritesheet(self) -> Path:
        """Sixteen frames at most, from left to right and top to bottom, a JPEG."""
        return self.folder / "spritesheet.jpg"

    @property
    def gif(self) -> Path:
        """Where the clip lies as a gif, once somebody asked for one."""
        return self.folder / "video.gif"

    @property
    def provenance(self) -> Mapping[str, Any] | None:
        """How it was made."""
        said = self.facts.get("provenance")
        return said if isinstance(said, dict) else None


@dataclass(frozen=True)
class Archive:
    """A folder of finished videos. `Archive.open` makes it."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> "Archive":
        """The archive in a folder, which is made if missing. Raises CannotWrite where nothing can be kept there."""
        archive = cls(folder.resolve())
        try:
            for part in (archive._videos, archive.uploads):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotWrite.because(folder, error) from error
        probe = archive.uploads / f".{secrets.token_hex(8)}.probe"
        files.write(probe, b"")
        probe.unlink(missing_ok=True)
        return archive

    @property
    def _videos(self) -> Path:
        return self.folder / "videos"

    @property
    def uploads(self) -> Path:
        """Where frames lie that somebody sent."""
        return self.folder / "uploads"

    def free(self) -> int:
        """How many bytes are free on its disk."""
        return shutil.disk_usage(self.folder).free

    def writable(self) -> bool:
        """Whether this user may write where videos and uploads lie: nobody made the disk read-only, or took it over."""
        return all(os.access(folder, os.W_OK | os.X_OK) for folder in (self._videos, self.uploads))

    def place(self, name: str) -> Path:
        """The folder of an entry. Raises CannotRead for what is no name."""
        if not NAME.fullmatch(name):
            raise CannotRead(f"{name!r} is no name of an entry")
        return self._videos / name[:2] / name

    def upload(self, name: str) -> Path:
        """The file of an upload. Raises CannotRead for what is no name."""
        if not UPLOAD.fullmatch(name):
            raise CannotRead(f"{name!r} is no name of an upload")
        return self.uploads / name

    def keep(
        self, name: str, video: Video, facts: Mapping[str, Any] | None = None, signer: Certificate | None = None
    ) -> Entry:
        """Write a video, its pictures and its facts under a name; a `signer` signs the film. Raises CannotWrite,
        UnsupportedFormat.
        """
        target = self.place(name)
        temporary = target.with_name(f".{name}.part")
        try:
            temporary.mkdir(parents=True)
            said = _written(temporary, video, facts or {}, signer)
            temporary.rename(target)
        except BaseException as error:  # a keyboard interrupt must not leave half an entry behind either
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError):
                raise CannotWrite.because(target, error) from error
            raise
        return Entry(target, said)

    def entry(self, name: str) -> Entry:
        """An entry by its name. Raises CannotRead."""
        folder = self.place(name)
        try:
            return Entry(folder, json.loads((folder / "entry.json").read_bytes()))
        except (OSError, ValueError) as error:
            raise CannotRead(f"cannot read the entry {name}: {error}") from error

    def entries(self) -> Iterator[Entry]:
        """Every entry, in no order."""
        for folder in self._videos.glob("*/*"):
            if NAME.fullmatch(folder.name):
                yield self.entry(folder.name)

    def remove(self, name: str) -> None:
        """Remove an entry, if there is one: first out of sight, then from the disk."""
        folder = self.place(name)
        hidden = folder.with_name(f".{name}.{secrets.token_hex(4)}.old")
        try:
            folder.rename(hidden)
        except FileNotFoundError:
            return
        shutil.rmtree(hidden, ignore_errors=True)

    def forget(self, name: str, upload: str) -> None:
        """Remove an entry and an upload; "" is none."""
        if name:
            self.remove(name)
        if upload:
            self.upload(upload).unlink(missing_ok=True)

    def lying_about(self, age: float = MAX_AGE) -> tuple[list[str], list[str]]:
        """Names of entries, and of uploads, that are older than so many seconds: somebody should know them."""
        oldest = time.time() - age
        entries = [f.name for f in self._videos.glob("*/*") if NAME.fullmatch(f.name) and _older(f, oldest)]
        uploads = [f.name for f in self.uploads.iterdir() if UPLOAD.fullmatch(f.name) and _older(f, oldest)]
        return entries, uploads

    def sweep(self, age: float = MAX_AGE) -> None:
        """Remove what was begun so many seconds ago and never finished."""
        oldest = time.time() - age
        for folder in (*self._videos.glob("*/.*"), *self.uploads.glob(".*")):
            if _older(folder, oldest):
                shutil.rmtree(folder, ignore_errors=True) if folder.is_dir() else folder.unlink(missing_ok=True)


def _older(path: Path, oldest: float) -> bool:
    try:
        return path.stat().st_mtime < oldest
    except OSError:  # somebody else was quicker
        return False


def scale(width: int, height: int) -> int:
    """By what a clip is enlarged in the archive's mp4, which needs even sides and keeps half the colours."""
    times = media.enlargement(width, height, ".mp4")
    return times * 2 if (width * times) % 2 or (height * times) % 2 else times


def check_size(width: int, height: int) -> None:
    """Raise UnsupportedFormat for a clip that is too large for the archive's mp4."""
    media.check_target(Path("video.mp4").resolve(), width, height, enlarge=scale(width, height), overwrite=True)


def _written(folder: Path, video: Video, facts: Mapping[str, Any], signer: Certificate | None) -> dict[str, Any]:
    entry, enlarge = Entry(folder, {}), scale(video.width, video.height)
    if signer is None:
        video.save(entry.video, enlarge=enlarge)
    else:
        credentials.save(video, entry.video, signer, enlarge=enlarge)
    files.fill(entry.thumbnail, lambda path: thumbnail(video.frames).save(path, "WEBP", quality=85))
    files.fill(entry.spritesheet, lambda path: spritesheet(video.frames).save(path, "JPEG", quality=85))
    said = {**facts, "bytes": entry.video.stat().st_size, "sha256": files.sha256(entry.video)}
    said["provenance"] = video.provenance.to_dict() if video.provenance else None
    files.write(folder / "entry.json", json.dumps(said))
    return said


def thumbnail(frames: Frames) -> Image.Image:
    """The middle frame."""
    return _fitted(frames[len(frames) // 2], THUMBNAIL)


def spritesheet(frames: Frames) -> Image.Image:
    """Frames from the whole clip, in rows of four."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, TILES).round().astype(int))
    tiles = [_fitted(frames[i], TILE) for i in chosen]
    width, height = tiles[0].size
    columns = min(COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width, i // columns * height))
    return sheet


def _fitted(frame: Frames, side: int) -> Image.Image:
    """A frame as a picture whose longer side is `side`, or, for a small one, the largest multiple below."""
    height, width = frame.shape[:2]
    times = side // max(width, height)
    if times >= 1:
        return Image.fromarray(media.enlarged(frame, times))
    factor = side / max(width, height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
