"""A process of its own that decodes what strangers send: little memory, little time, no way out but one file.

    python -m kinetograph.server.decoding RAW FOLDER NAME

writes FOLDER/NAME.png for a picture or FOLDER/NAME.npz for a clip, and one line of JSON. Decoders have had bugs that
let a file take over the process; this one has nothing to take but its own few seconds. Its words are its own: what a
decoder says about a file may hold addresses of memory.
"""

import json
import os
import sys
from pathlib import Path

from kinetograph.errors import NO_ROOM, KinetographError

MEMORY, SECONDS, FILE = 1_500 * 2**20, 20, 512 * 2**20  # of address space; of the processor; of what it writes
SIDE, PIXELS, FRAMES = 4_096, 2**25, 1_000  # of one frame; of all together
PICTURES = ("PNG", "JPEG", "WEBP")
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "libvpx", "libvpx-vp9")
REFUSED = 3  # the exit code of a file that is refused, for a reason that the line of JSON tells


class Refused(Exception):
    """A file that is not decoded: one of a few sentences, never a decoder's."""


def limit() -> None:
    """Give this process little to work with, for good. Where the system has no such limits, only time is limited."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def main(raw: Path, folder: Path, name: str) -> int:
    """Decode one file. The exit code."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    limit()
    try:
        said = _decoded(raw, folder, name)
    except Refused as error:
        print(json.dumps({"refused": str(error)}))
        return REFUSED
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(json.dumps({"full": True}))
        return REFUSED
    print(json.dumps(said))
    return 0


def _decoded(raw: Path, folder: Path, name: str) -> dict[str, object]:
    with raw.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp":
        return _clip(raw, folder, name, "mp4")
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _clip(raw, folder, name, "webm")
    return _picture(raw, folder, name)


def _picture(raw: Path, folder: Path, name: str) -> dict[str, object]:
    from PIL import Image

    from kinetograph.media import DECODING_ERRORS

    try:
        with Image.open(raw, formats=PICTURES) as picture:
            width, height = picture.size
            if max(width, height) > SIDE:
                raise Refused(f"a picture may have {SIDE} pixels on a side, not {width}x{height}")
            decoded = picture.convert("RGB")
    except (*DECODING_ERRORS, MemoryError) as error:
        raise Refused("this is no picture (PNG, JPEG, WebP) and no clip (mp4, webm) that can be read") from error
    decoded.save(folder / f"{name}.png", "PNG")
    return {"file": f"{name}.png", "frames": 1, "width": width, "height": height, "fps": None, "metadata": None}


def _clip(raw: Path, folder: Path, name: str, container: str) -> dict[str, object]:
    from kinetograph import media

    _check_clip(raw, container)
    named = raw.with_name(f"{raw.name}.{container}")
    os.link(raw, named)
    try:
        clip = media.read(named)
        frames = media.reduced(clip.frames, clip.enlarged)
        media.write(folder / f"{name}.npz", frames, clip.fps, metadata=clip.metadata)
    except (KinetographError, MemoryError) as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM:
            raise error.__cause__ from None
        raise Refused("the clip is damaged, or too large") from error
    finally:
        named.unlink()
    count, height, width, _ = frames.shape
    size = {"frames": count, "width": width, "height": height, "fps": str(clip.fps)}
    return {"file": f"{name}.npz", **size, "metadata": clip.metadata}


def _check_clip(raw: Path, container: str) -> None:
    """Look at what a clip says of itself, with no decoder but those on the list."""
    import av

    from kinetograph.media import DECODING_ERRORS

    options = {"codec_whitelist": ",".join(CODECS), "protocol_whitelist": "file", "enable_drefs": "0"}
    options = {key: value for key, value in options.items() if container == "mp4" or key != "enable_drefs"}
    try:
        with raw.open("rb") as opened, av.open(opened, "r", format=container, container_options=options) as file:
            if not file.streams.video:
                raise Refused("there is no video in the clip")
            stream = file.streams.video[0]
            codec, width, height = stream.codec_context.name, stream.width, stream.height
            frames = stream.frames or round(float(file.duration or 0) / 1e6 * float(stream.average_rate or 0))
    except DECODING_ERRORS as error:
        raise Refused("the clip is damaged") from error
    if codec not in CODECS:
        raise Refused(f"clips are read in {', '.join(CODECS[:5])}")
    if max(width, height) > SIDE or frames > FRAMES or width * height * max(frames, 1) > PIXELS:
        raise Refused(f"a clip may have {SIDE} pixels on a side, {FRAMES} frames and {PIXELS} pixels in all")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
