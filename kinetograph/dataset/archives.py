"""Members of npz and tar files, written by hand: zipfile takes longer over one clip than drawing it does."""

import io
import math
import struct
import zipfile
import zlib
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from kinetograph import media

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


def zipped(others: Opening, last: ZipMember) -> bytes:
    """The zip file with its last member."""
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
def opening(fps: int, frames: int, palette: bytes = b"") -> Opening:
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


def tar_member(name: str, data: bytes) -> tuple[bytes, ...]:
    """One file of a tar archive (POSIX ustar): header, content, padding."""
    title, size = name.encode(), b"%011o\0" % len(data)
    checksum = b"%06o\0 " % (TAR_SUM + sum(title) + sum(size))
    return title.ljust(100, b"\0"), TAR_OWNER, size, TAR_DATE, checksum, TAR_BELOW, data, bytes(-len(data) % 512)


@cache
def npy_header(shape: tuple[int, ...]) -> bytes:
    """What stands before the bytes of a uint8 array of this shape in an npy file."""
    return _npy(np.empty(shape, np.uint8))[: -math.prod(shape)]


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()
