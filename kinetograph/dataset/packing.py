"""The clips of a shard as the bytes of its tar file: an npz or an mp4 each, and a json beside it."""

import tempfile
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType

from pydantic_core import to_json

from kinetograph import media
from kinetograph.dataset import stamping
from kinetograph.dataset.archives import ZipMember, npy_header, opening, tar_member, zipped
from kinetograph.dataset.clips import Described, describe, draw, said
from kinetograph.dataset.plan import Plan
from kinetograph.media import Frames
from kinetograph.shelf import WORLDS

MEMORY = 6  # of zlib's 9: a smaller table of hashes, which stays in the cache; a quarter faster, no larger


def pack(plan: Plan, places: range) -> Iterator[tuple[list[Described], bytes]]:
    """Blocks of clips, each clip as its two members of the tar file, padded and ready to be written."""
    world = WORLDS[plan.world]
    files = _mp4s if plan.format == "mp4" else _indexed_npzs if hasattr(world, "stamps") else _npzs
    for start in range(0, len(places), plan.block):
        clips = describe(world, plan, places[start : start + plan.block])
        parts: list[bytes] = []
        for clip, file in zip(clips, files(world, plan, clips), strict=True):
            key, text = f"{clip.place:09d}", to_json(said(world, plan, clip))  # json takes six times as long
            parts += (*tar_member(f"{key}.{plan.format}", file), *tar_member(f"{key}.json", text))
        yield clips, b"".join(parts)


def _mp4s(world: ModuleType, plan: Plan, clips: Sequence[Described]) -> Iterator[bytes]:
    for frames in draw(world, plan, clips):
        yield _mp4(frames, plan)


def _mp4(frames: Frames, plan: Plan) -> bytes:
    note = media.Note(fps=Fraction(plan.fps), frames=plan.frames, enlarged=plan.enlarged)
    # Not in the data set's own folder, and not flushed to the disk: it is read at once.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        media.FORMATS[".mp4"].write(path, frames, note)
        return path.read_bytes()


def _npzs(world: ModuleType, plan: Plan, clips: Sequence[Described]) -> Iterator[bytes]:
    """Clips as `numpy.load` and `Video.load` read them: the zip file of media's npz, deflated as fast as zlib can."""
    header, first = npy_header((plan.frames, plan.height, plan.width, 3)), opening(plan.fps, plan.frames)
    for frames in draw(world, plan, clips):
        packer, data = zlib.compressobj(1, zlib.DEFLATED, -15, MEMORY), frames.data.cast("B")
        packed = packer.compress(header) + packer.compress(data) + packer.flush()
        crc = zlib.crc32(data, zlib.crc32(header))
        yield zipped(first, ZipMember("frames.npy", packed, crc, len(header) + len(data)))


def _indexed_npzs(world: ModuleType, plan: Plan, clips: Sequence[Described]) -> Iterator[bytes]:
    """Clips of a world that stamps, as `numpy.load` reads them: their frames are `palette[index]`."""
    scenes, size = [clip.scene for clip in clips], (plan.frames, plan.height, plan.width)
    header, stamps = npy_header(size), [*world.stamps(scenes, *size)]
    planes, streams = stamping.index(stamps, len(clips), *size), stamping.deflated(header, stamps, len(clips), *size)
    for scene, plane, stream in zip(scenes, planes, streams, strict=True):
        first = opening(plan.fps, plan.frames, world.shades(scene).tobytes())
        crc = zlib.crc32(plane, zlib.crc32(header))
        yield zipped(first, ZipMember("index.npy", stream, crc, len(header) + plane.nbytes))
