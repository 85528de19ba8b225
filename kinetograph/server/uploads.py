"""Uploads: frames that somebody sends, decoded in a process of their own and kept as lossless files of ours."""

import base64
import binascii
import io
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from starlette.datastructures import UploadFile

from kinetograph import files
from kinetograph.archive import Archive
from kinetograph.errors import CannotRead, CannotWrite, InvalidRequest, NoProvenance, QuotaExceeded
from kinetograph.video import Provenance, Video

PATIENCE = 25.0  # seconds for one upload
AT_ONCE = threading.BoundedSemaphore(2)
DATA_URL = re.compile(r"data:(?:image|video)/[\w.+-]{1,40};base64,", re.ASCII)


@dataclass(frozen=True)
class Upload:
    """Frames among the archive's uploads: `name` is their file, `digest` of what was sent; what it says of itself."""

    name: str
    digest: str
    frames: int
    width: int
    height: int
    fps: Fraction | None = None
    provenance: Provenance | None = None


def accept(archive: Archive, given: object, field: str) -> Upload:
    """Take what somebody sent: a file, or an object with a data URL. Raises InvalidRequest for everything else."""
    if isinstance(given, UploadFile):
        return _taken(archive, given.file, field)
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{field} is no JSON object", field=field) from error
    if isinstance(given, Mapping) and isinstance(given.get("image_url"), Mapping):
        given = {"image_url": given["image_url"].get("url")}
    url = given.get("image_url") if isinstance(given, Mapping) else given
    if isinstance(url, str) and (match := DATA_URL.match(url)):
        return _taken_bytes(archive, url[match.end() :], field)
    hint = "send a file, or a data URL: data:image/png;base64,..."
    if isinstance(given, Mapping) and "file_id" in given:
        raise InvalidRequest(f"{field} names a file, and this server keeps none", field=field, hint=hint)
    raise InvalidRequest(f"{field} is no file; addresses are not fetched", field=field, hint=hint)


def of_clip(archive: Archive, path: Path, digest: str) -> Upload:
    """A finished video of the archive, kept once more, so that it can be gone on from when it is deleted."""
    video = Video.load(path)
    name = f"{secrets.token_hex(16)}.mp4"
    temporary = archive.uploads / f".{name}.part"
    try:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(path, temporary)
        temporary.rename(archive.upload(name))
    except FileNotFoundError as error:
        raise CannotRead(f"cannot read {path}: {error}") from error
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CannotWrite.because(temporary, error) from error
    return Upload(name, digest, len(video.frames), video.width, video.height, video.fps, video.provenance)


def _taken_bytes(archive: Archive, text: str, field: str) -> Upload:
    try:
        return _taken(archive, io.BytesIO(base64.b64decode(text, validate=True)), field)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{field} is no base64", field=field) from error


def _taken(archive: Archive, source: BinaryIO, field: str) -> Upload:
    name = secrets.token_hex(16)
    room = archive.uploads / f".{name}"  # a folder that is gone afterwards, whatever is in it
    if not AT_ONCE.acquire(timeout=PATIENCE):
        raise QuotaExceeded("too many files are being read just now", retry_after=5)
    try:
        raw = _laid_down(source, room)
        said = _decoded(raw, room, name, field)
        digest = files.sha256(raw)
        (room / said["file"]).rename(archive.upload(said["file"]))
    finally:
        AT_ONCE.release()
        shutil.rmtree(room, ignore_errors=True)
    fps = None if said["fps"] is None else Fraction(said["fps"])
    made = _provenance(said["metadata"])
    return Upload(said["file"], digest, said["frames"], said["width"], said["height"], fps, made)


def _laid_down(source: BinaryIO, room: Path) -> Path:
    """What came, as a file in a folder of its own."""
    raw = room / "raw"
    try:
        room.mkdir()
        with raw.open("wb") as file:
            source.seek(0)
            shutil.copyfileobj(source, file)
    except OSError as error:
        raise CannotWrite.because(room, error) from error
    return raw


def _decoded(raw: Path, room: Path, name: str, field: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "kinetograph.server.decoding", str(raw), str(room), name]
    environment = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if key in os.environ}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            command, **streams, timeout=PATIENCE, env={**environment, "OPENBLAS_NUM_THREADS": "1"}, check=False
        )
        said = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise InvalidRequest(f"{field} cannot be read", field=field, hint="PNG, JPEG, WebP, mp4 or webm") from error
    if "full" in said:
        raise CannotWrite(f"cannot write what {field} holds: the disk is full", full=True)
    if "refused" in said:
        raise InvalidRequest(f"{field} is refused: {said['refused']}", field=field)
    return dict(said)


def _provenance(metadata: str | None) -> Provenance | None:
    try:
        return Provenance.from_json(metadata) if metadata else None
    except NoProvenance:
        return None
