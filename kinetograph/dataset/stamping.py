"""Clips of a world that stamps: patches put in their places, and deflated there without a look at the zeros around."""

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

from kinetograph.media import Frames

Stamps = Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]  # what a world's `stamps` yields: clips, corners, patches


def index(stamps: Stamps, b: int, t: int, h: int, w: int) -> Frames:
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


def deflated(header: bytes, stamps: Stamps, b: int, t: int, h: int, w: int) -> list[bytes]:
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
