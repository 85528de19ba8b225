"""Arrays to files and back: mp4, webm, gif, webp, animated png, a folder of png frames, npz.

Every file carries a *note*, one line of JSON: the exact rate, how many frames there are, how often each
stored picture is shown, how much the pictures were enlarged, and the metadata that the caller gave, if any.
Containers round a rate to milliseconds or merge pictures that do not change; the note is what makes `read`
give back exactly what `write` was given.

A file is written under a temporary name in its own folder, flushed to the disk and then renamed, so that
what stands under the real name is whole. Everything that goes wrong is a MediaError, or InvalidVideo for
an array that is no clip.
"""

import contextlib
import html
import json
import math
import os
import re
import shutil
import struct
import sys
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

from kinetograph.errors import (
    CannotRead,
    CannotWrite,
    InvalidVideo,
    MediaError,
    OutputExists,
    UnsupportedFormat,
    did_you_mean,
)

Frames = NDArray[np.uint8]  # (t, h, w, 3), RGB

MAX_PIXELS = 2**30  # width x height x frames that `read` will open: 3 GiB of RGB
MAX_NOTE = 2**24  # bytes of a note that `read` will look at
MAX_ENLARGEMENT = 64
MAX_TERM = 2**31 - 1  # of a rate, above and below its bar
SMALL = 128  # pixels: up to this side a clip is enlarged before its colours are subsampled
BT709, TV_RANGE = int(Colorspace.ITU709), int(ColorRange.MPEG)


@dataclass(frozen=True)
class Clip:
    """What a file holds: `frames` as they are stored, `fps`, the caller's `metadata` (JSON, or None where
    the file has none of ours), and by what factor the stored frames are `enlarged`.
    """

    frames: Frames
    fps: Fraction
    metadata: str | None
    enlarged: int = 1


# --- the note -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a file says about itself. `shown[i]` is how many frames the i-th stored picture stands for."""

    fps: Fraction
    frames: int
    enlarged: int = 1
    shown: tuple[int, ...] = ()
    metadata: Any = None

    def text(self) -> str:
        """One line of JSON."""
        said: dict[str, Any] = {
            "kinetograph": 1,
            "fps": str(self.fps),
            "frames": self.frames,
            "enlarged": self.enlarged,
        }
        if any(times != 1 for times in self.shown):
            said["shown"] = list(self.shown)
        if self.metadata is not None:
            said["provenance"] = self.metadata
        return json.dumps(said, ensure_ascii=False)

    @classmethod
    def parse(cls, text: str | None) -> "Note | None":
        """Read a note; None for what is not one. Raises ValueError for one that cannot be true."""
        try:
            said = json.loads(text or "")
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict) or said.get("kinetograph") != 1:
            return None
        try:
            note = cls(
                fps=_rate(str(said["fps"])),
                frames=int(said["frames"]),
                enlarged=int(said["enlarged"]),
                shown=tuple(int(times) for times in said.get("shown", ())),
                metadata=said.get("provenance"),
            )
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"its note is damaged ({error})") from error
        note._check()
        return note

    def _check(self) -> None:
        sane = self.fps > 0 and self.frames > 0 and 1 <= self.enlarged <= MAX_ENLARGEMENT
        if not sane or (self.shown and (min(self.shown) < 1 or sum(self.shown) != self.frames)):
            raise ValueError("its note contradicts itself")


def _rate(text: str) -> Fraction:
    """A fraction of two whole numbers: an exponent could ask for more digits than there is memory."""
    if not re.fullmatch(r"[0-9]{1,19}(/[0-9]{1,19})?", text):
        raise ValueError(f"a rate of {text[:40]!r}")
    return Fraction(text)


@dataclass(frozen=True)
class Stored:
    """What a reader found: the pictures, the rate that the container itself gives, the note's text."""

    pictures: list[Frames]  # each (h, w, 3)
    fps: Fraction
    note: str | None
    shown: tuple[int, ...] = ()  # as the container's own durations have it


# --- the formats --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Format:
    """One container: what it keeps of the pixels, what sizes it takes, and how it is written and read."""

    name: str
    keeps: Literal["every pixel", "256 colours", "half the colour"]
    largest: int  # pixels on one side
    write: Callable[[Path, Frames, Note], None]
    read: Callable[[Path], Stored]

    @property
    def lossy(self) -> bool:
        """Whether colour is stored at half the resolution (4:2:0), which also asks for even sizes."""
        return self.keeps == "half the colour"


def format_of(path: str | os.PathLike[str]) -> Format:
    """The format that a name asks for. Raises UnsupportedFormat for a suffix that is not in FORMATS."""
    text, name = os.fspath(path), Path(path).name.lower()
    if "\0" in text:
        raise UnsupportedFormat(f"{text!r} is no path", hint="a path cannot hold the character NUL")
    folder = text.endswith(("/", os.sep)) or os.path.isdir(text)
    suffix = "" if folder else Path(path).suffix.lower()
    if suffix in FORMATS and name not in FORMATS:
        return FORMATS[suffix]
    known = " ".join(sorted(filter(None, FORMATS)))
    raise UnsupportedFormat(
        f"{text!r} is no file name" if name in FORMATS else f"no format is called {suffix!r} ({text})",
        hint=f"there are {known}, and a name without a suffix for a folder of pictures",
    )


def enlargement(width: int, height: int, suffix: str) -> int:
    """By what factor to enlarge a clip of this size (pixels): 4 for a small clip in a lossy file, else 1.

    Chroma subsampling costs a 64x64 clip more than the quantiser does; four pixels for one, it costs
    nothing that one sees.
    """
    row = FORMATS.get(suffix.lower())
    return 4 if row is not None and row.lossy and max(width, height) <= SMALL else 1


# --- writing ------------------------------------------------------------------------------------------------


def write(
    path: str | os.PathLike[str],
    frames: Frames,
    fps: Fraction,
    *,
    metadata: str | None = None,
    enlarge: int = 1,
    overwrite: bool = False,
) -> Path:
    """Write frames (t, h, w, 3) at `fps` frames per second, `enlarge` times as large; return their path.

    `metadata` is one JSON text, stored in the file's comment; with None the file says nothing but its rate
    and its count. Raises InvalidVideo, UnsupportedFormat, OutputExists or CannotWrite; whatever happens,
    nothing half-written remains.
    """
    check_frames(frames, fps)
    _, height, width, _ = frames.shape
    target = check_target(path, width, height, enlarge=enlarge, overwrite=overwrite)
    note = Note(fps=Fraction(fps), frames=len(frames), enlarged=enlarge, metadata=_parsed(target, metadata))
    with _replacing(target) as temporary:
        format_of(path).write(temporary, frames, note)
    return target


def check_frames(frames: Frames, fps: Fraction) -> None:
    """Raise InvalidVideo unless these are uint8 frames (t, h, w, 3), at least one, at a rate above zero."""
    kind: object = getattr(frames, "dtype", type(frames).__name__)
    shape: tuple[int, ...] = getattr(frames, "shape", ())
    if kind != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise InvalidVideo(
            f"frames are {kind} {tuple(shape)}, not a clip",
            hint="frames are uint8 (time, height, width, 3), at least one",
        )
    if isinstance(fps, bool) or not isinstance(fps, int | Fraction) or not fps > 0:
        raise InvalidVideo(f"fps is {fps}", hint="a rate is a Fraction above zero")
    if max(Fraction(fps).as_integer_ratio()) > MAX_TERM:
        raise InvalidVideo(
            f"fps is {fps}", hint=f"neither number of a rate is above {MAX_TERM}: containers hold no more"
        )


def check_target(
    path: str | os.PathLike[str], width: int, height: int, *, enlarge: int = 1, overwrite: bool = False
) -> Path:
    """Refuse early what `write` would refuse late: call it before the frames are made. Sizes in pixels."""
    row, target = format_of(path), Path(path)
    _check_sizes(row, target, width, height, enlarge)
    folder = target.parent
    if not os.path.isdir(folder):
        fact = "is not a folder" if os.path.exists(folder) else "does not exist"
        raise CannotWrite(
            f"cannot write {target}: the folder {folder} {fact}", hint=f"make it first: mkdir -p {folder}"
        )
    if not os.access(folder, os.W_OK):
        raise CannotWrite(f"cannot write {target}: this user may not write into {folder}", hint="write elsewhere")
    if os.path.lexists(target):
        _check_replaceable(row, target, overwrite)
    return target


def _check_sizes(row: Format, target: Path, width: int, height: int, enlarge: int) -> None:
    if isinstance(enlarge, bool) or not isinstance(enlarge, int) or not 1 <= enlarge <= MAX_ENLARGEMENT:
        raise InvalidVideo(f"enlarge is {enlarge!r}", hint=f"a whole number from 1 to {MAX_ENLARGEMENT}")
    w, h = width * enlarge, height * enlarge
    if max(w, h) > row.largest:
        raise UnsupportedFormat(
            f"{w}x{h} is too large for {row.name} ({target})", hint=f"at most {row.largest} on a side"
        )
    if row.lossy and (w % 2 or h % 2):
        near = f"{w - w % 2 or 2}x{h - h % 2 or 2} or {w + w % 2}x{h + h % 2}"
        others = " ".join(sorted(suffix for suffix, other in FORMATS.items() if suffix and not other.lossy))
        raise UnsupportedFormat(
            f"{row.name} needs even sizes, and this clip is {w}x{h} ({target})",
            hint=f"nearest: {near}; any size fits into {others}, and an enlargement by 2 makes any size even",
        )


def _check_replaceable(row: Format, target: Path, overwrite: bool) -> None:
    is_folder = os.path.isdir(target)
    ours = _is_frame_folder(target) if is_folder else target.is_file() or target.is_symlink()
    if is_folder != (row is FORMATS[""]) or not ours:
        other = "not a folder of pictures" if ours else "no ordinary file"
        kind = "a folder that is no clip" if is_folder else other
        raise OutputExists(f"{target} is already there and is {kind}", hint="choose another name")
    if not overwrite:
        raise OutputExists(f"{target} is already there", hint="choose another name, or replace it with --force")


def _is_frame_folder(folder: Path) -> bool:
    """Whether a folder holds nothing but what `write` puts there: replacing it destroys nothing else."""
    return all(re.fullmatch(r"frame_[0-9]+\.png|provenance\.json", item.name) for item in folder.iterdir())


def _parsed(target: Path, metadata: str | None) -> Any:
    if metadata is None:
        return None
    try:
        said = json.loads(metadata)
        json.dumps(said, ensure_ascii=False).encode()  # half a surrogate pair cannot be stored anywhere
        return said
    except (ValueError, RecursionError) as error:
        raise CannotWrite(f"cannot write {target}: its metadata is not one JSON text ({error})") from error


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary name beside the target: it takes the target's place on success, and is gone on failure."""
    temporary = target.parent / f".{uuid.uuid4().hex[:12]}.part"
    try:
        yield temporary
        _flush(temporary)
        _put(temporary, target)
        _flush_folder(target.parent)
    except BaseException as error:  # a keyboard interrupt must not leave a file behind either
        _remove(temporary)
        if isinstance(error, OSError):
            raise CannotWrite.because(target, error) from error
        if isinstance(error, av.FFmpegError):
            raise CannotWrite(f"cannot write {target}: the encoder said {error.strerror}") from error
        raise


def _put(temporary: Path, target: Path) -> None:
    if not target.is_dir():
        os.replace(temporary, target)
        return
    old = temporary.with_suffix(".old")  # a folder that is not empty cannot be replaced in one step
    os.replace(target, old)
    try:
        os.replace(temporary, target)
    except BaseException:
        os.replace(old, target)
        raise
    _remove(old)


def _flush(path: Path) -> None:
    for file in [*path.iterdir()] if path.is_dir() else [path]:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
    if path.is_dir():
        _flush_folder(path)


def _flush_folder(folder: Path) -> None:
    if sys.platform == "win32":  # folders cannot be opened there; the rename is durable by itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # there is a better error on its way already
        path.unlink()


# --- reading ------------------------------------------------------------------------------------------------


DECODING_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError),
    *(RuntimeError, UserWarning, struct.error, zlib.error, zipfile.BadZipFile, TokenError, av.FFmpegError),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)  # what Pillow, numpy, zipfile and FFmpeg have been seen to raise on damaged files


def _neighbours(path: Path) -> list[str]:
    """The names of what lies beside a path."""
    try:
        return os.listdir(path.parent)
    except OSError:
        return []


def read(path: str | os.PathLike[str]) -> Clip:
    """Read a file that `write` made, or a foreign one. An enlarged clip comes back as it is stored, enlarged.

    Raises CannotRead for a file that is missing, damaged, cut short or larger than MAX_PIXELS,
    UnsupportedFormat for one whose suffix is not known.
    """
    source = Path(path)
    if not os.path.exists(source):
        hint = did_you_mean(source.name, _neighbours(source))
        raise CannotRead(f"cannot read {source}: there is no such file", hint=hint)
    try:
        return _clip(format_of(path).read(source))
    except MediaError:
        raise
    except (InvalidVideo, *DECODING_ERRORS) as error:
        raise CannotRead(f"cannot read {source}: {_fact(error)}") from error


def read_frames(path: str | os.PathLike[str]) -> Frames:
    """The frames (t, h, w, 3) of a clip at their own size, or of any picture that Pillow knows, as one frame.

    Raises CannotRead as `read` does.
    """
    if Path(path).suffix.lower() in FORMATS or os.path.isdir(path):
        clip = read(path)
        return reduced(clip.frames, clip.enlarged)
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))[None]
    except DECODING_ERRORS as error:
        raise CannotRead(f"cannot read {os.fspath(path)}: {_fact(error)}") from error


def _fact(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own message names a Python object
        return "its content is not what its name says"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _clip(stored: Stored) -> Clip:
    note = Note.parse(stored.note)
    shown = (note.shown if note else stored.shown) or (1,) * len(stored.pictures)
    if not stored.pictures:
        raise ValueError("it holds no pictures")
    if len(shown) != len(stored.pictures) or (note and sum(shown) != note.frames):
        should = len(shown) if note is None or note.shown else note.frames
        raise ValueError(f"it is cut short: {len(stored.pictures)} pictures are left of {should}")
    h, w, _ = stored.pictures[0].shape
    _cap(w, h, sum(shown))
    if note and (w % note.enlarged or h % note.enlarged):
        raise ValueError("its note contradicts its size")
    frames = np.repeat(np.stack(stored.pictures), shown, axis=0) if max(shown) > 1 else np.stack(stored.pictures)
    if note is None:
        return Clip(frames, stored.fps, None)
    metadata = None if note.metadata is None else json.dumps(note.metadata, ensure_ascii=False)
    return Clip(frames, note.fps, metadata, note.enlarged)


def _cap(width: int, height: int, frames: int) -> None:
    if width * height * frames > MAX_PIXELS:
        raise ValueError(f"{width}x{height}x{frames} is more than the {MAX_PIXELS} pixels that are opened safely")


# --- sizes --------------------------------------------------------------------------------------------------


def enlarged(frame: Frames, times: int) -> Frames:
    """Every pixel of one frame (h, w, 3) as a square of times x times pixels."""
    return np.ascontiguousarray(frame.repeat(times, axis=0).repeat(times, axis=1)) if times > 1 else frame


def reduced(frames: Frames, times: int) -> Frames:
    """The opposite of `enlarged`, for frames (t, h, w, 3): the mean of each times x times square."""
    if times == 1:
        return frames
    t, h, w, c = frames.shape
    small = np.empty((t, h // times, w // times, c), np.uint8)
    for i, frame in enumerate(frames):  # one by one: the means are floats, four times the size
        blocks = frame.reshape(h // times, times, w // times, times, c)
        small[i] = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32))
    return small


# --- mp4 and webm -------------------------------------------------------------------------------------------


def _encoder(container: str, codec: str, options: dict[str, str]) -> Callable[[Path, Frames, Note], None]:
    flags = {"movflags": "+faststart"} if container == "mp4" else {}

    def write(path: Path, frames: Frames, note: Note) -> None:
        with av.open(os.path.abspath(path), "w", format=container, options=flags) as file:
            file.metadata["comment"] = note.text()
            stream: Any = file.add_stream(codec, rate=note.fps, options=options)
            stream.height, stream.width = (side * note.enlarged for side in frames.shape[1:3])
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            # 1 is BT.709 in each of these; a player that finds no tag guesses by size, and guesses wrong for
            # small clips
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = TV_RANGE
            for frame in frames:
                file.mux(stream.encode(_yuv(enlarged(frame, note.enlarged))))
            file.mux(stream.encode(None))

    return write


def _yuv(frame: Frames) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    # AREA: each chroma sample is the mean of its own four pixels. The default filter reaches over the edges
    # (-4.5 dB).
    return picture.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.AREA,
    )


def _opened(file: BinaryIO, container: str) -> InputContainer:
    return av.open(file, "r", format=container, metadata_errors="replace")


def _decoder(container: str) -> Callable[[Path], Stored]:
    def read(path: Path) -> Stored:
        # The format is given, and the file is opened here: a hostile playlist cannot make FFmpeg open
        # something else.
        with open(path, "rb") as opened, _opened(opened, container) as file:
            if not file.streams.video:
                raise ValueError("it holds no video")
            stream: Any = file.streams.video[0]
            _cap(stream.width, stream.height, max(stream.frames, 1))
            comments = {key.lower(): text for key, text in file.metadata.items()}  # webm shouts its keys
            pictures: list[Frames] = []
            for frame in file.decode(stream):
                _cap(frame.width, frame.height, len(pictures) + 1)
                pictures.append(frame.to_ndarray(format="rgb24"))
            rate = Fraction(stream.average_rate or stream.guessed_rate or 1)
            return Stored(pictures, rate, comments.get("comment"))

    return read


# --- gif, webp and animated png -----------------------------------------------------------------------------


def _runs(pictures: Sequence[NDArray[Any]]) -> tuple[int, ...]:
    """How often each picture comes in a row. Pillow would merge equal ones and forget how many there were."""
    changes = [i for i, (one, two) in enumerate(pairwise(pictures), start=1) if not np.array_equal(one, two)]
    return tuple(end - start for start, end in pairwise([0, *changes, len(pictures)]))


def _firsts(shown: Sequence[int]) -> list[int]:
    """The index of the first frame of each run."""
    return [0, *np.cumsum(shown)[:-1].tolist()]


def _ticks(shown: Sequence[int], fps: Fraction, per_second: int, least: int, most: int) -> list[int]:
    """How long each picture stands, in 1/per_second. Ends are rounded, so that errors do not add up."""
    ends = [round(int(end) * per_second / fps) for end in np.cumsum([0, *shown])]
    return [min(max(end - start, least), most) for start, end in pairwise(ends)]


def _write_gif(path: Path, frames: Frames, note: Note) -> None:
    palette, indices = _with_palette(frames)
    shown = _runs(indices)
    images = []
    for i in _firsts(shown):
        picture = enlarged(indices[i][..., None], note.enlarged)[..., 0]
        image = Image.fromarray(picture)
        image.putpalette(palette)
        images.append(image)
    comment = _noted(note, shown).encode()
    # Units of 10 ms; browsers slow anything below 20 ms down to 100.
    durations = [10 * ticks for ticks in _ticks(shown, note.fps, 100, 2, 65_535)]
    with open(path, "xb") as file:
        images[0].save(
            file,
            "GIF",
            save_all=True,
            append_images=images[1:],
            duration=durations if len(images) > 1 else durations[0],
            loop=0,
            palette=palette,
            comment=comment,
        )


def _with_palette(frames: Frames) -> tuple[bytes, list[NDArray[np.uint8]]]:
    """One palette for the whole clip, so that nothing flickers, and each frame as indices (h, w) into it.

    Exact up to 256 colours; beyond that, the best 256 by median cut.
    """
    packed = frames.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)  # (t, h, w)
    colours = np.unique(packed)
    if len(colours) <= 256:
        table = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1).astype(np.uint8)
        padded = np.concatenate([table, np.repeat(table[:1], 256 - len(table), 0)])
        return padded.tobytes(), [np.searchsorted(colours, frame).astype(np.uint8) for frame in packed]
    step = max(1, frames[..., 0].size // 2**22)  # at most four million pixels are looked at
    sample = np.ascontiguousarray(frames.reshape(-1, 3)[::step])[None]
    few = Image.fromarray(sample).quantize(256, method=Image.Quantize.MEDIANCUT)
    palette = bytes(few.getpalette() or ()).ljust(768, b"\0")
    images = (Image.fromarray(frame).quantize(palette=few, dither=Image.Dither.NONE) for frame in frames)
    return palette, [np.asarray(image) for image in images]


def _write_webp(path: Path, frames: Frames, note: Note) -> None:
    shown = _runs([*frames])
    images = [Image.fromarray(enlarged(frames[i], note.enlarged)) for i in _firsts(shown)]
    with open(path, "xb") as file:
        images[0].save(
            file,
            "WEBP",
            save_all=True,
            append_images=images[1:],
            duration=_ticks(shown, note.fps, 1000, 1, 2**24 - 1),
            loop=0,
            lossless=True,
            xmp=_xmp(note, shown),
        )


def _write_png(path: Path, frames: Frames, note: Note) -> None:
    shown = _runs([*frames])
    images = [Image.fromarray(enlarged(frames[i], note.enlarged)) for i in _firsts(shown)]
    with open(path, "xb") as file:
        images[0].save(
            file,
            "PNG",
            save_all=True,
            append_images=images[1:],
            duration=[_png_duration(times / note.fps) for times in shown],
            loop=0,
            pnginfo=_png_text(note, shown),
        )


def _png_duration(seconds: Fraction) -> float:
    """Milliseconds that fit into a fraction of two 16-bit numbers, which is what Pillow writes."""
    near = seconds.limit_denominator(65_535)
    if near.numerator > 65_535:
        near = Fraction(min(round(seconds), 65_535))
    return float(near * 1000)


def _noted(note: Note, shown: tuple[int, ...]) -> str:
    return Note(**{**vars(note), "shown": shown}).text()


def _png_text(note: Note, shown: tuple[int, ...] = ()) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Comment", _noted(note, shown))
    info.add_itxt("XML:com.adobe.xmp", _xmp(note, shown).decode())
    return info


def _xmp(note: Note, shown: tuple[int, ...]) -> bytes:
    """The note as a description, and the mark of AI-generated media as the property that the IPTC defines for it."""
    text = html.escape(_noted(note, shown), quote=False)
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        f'{_source_type(note)}><dc:description><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li>'
        "</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def _source_type(note: Note) -> str:
    """The XMP attribute that says how the picture came about, where the caller's metadata say it."""
    said = note.metadata.get("digital_source_type") if isinstance(note.metadata, dict) else None
    if said is None:
        return ""
    namespace = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    return f' xmlns:Iptc4xmpExt="{namespace}" Iptc4xmpExt:DigitalSourceType="{html.escape(str(said))}"'


def _note_of(image: Image.Image) -> str | None:
    """The text that a picture carries, wherever its container keeps text."""
    raw = image.info.get("Comment", image.info.get("comment", image.info.get("xmp")))
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    if not isinstance(text, str) or len(text) > MAX_NOTE:
        return None
    # Not an XML parser: those expand entities, and a hostile file can nest them.
    match = re.search(r'<rdf:li xml:lang="x-default">([^<]*)</rdf:li>', text)
    return html.unescape(match[1]) if match else str(text)


def _reader(container: str) -> Callable[[Path], Stored]:
    def read(path: Path) -> Stored:
        with open(path, "rb") as opened, Image.open(opened, formats=[container]) as image:
            _cap(*image.size, 1)
            note = _note_of(image)
            count = getattr(image, "n_frames", 1)
            _cap(*image.size, count)
            pictures, durations = [], []
            for i in range(count):
                image.seek(i)
                pictures.append(np.asarray(image.convert("RGB")))
                durations.append(Fraction(image.info.get("duration") or 0).limit_denominator(1000))
        fps, shown = _timing(durations)
        return Stored(pictures, fps, note, shown)

    return read


def _timing(durations: Sequence[Fraction]) -> tuple[Fraction, tuple[int, ...]]:
    """Rate and repetitions from a foreign file's durations (ms): one frame is their longest common tick."""
    if len(durations) < 2 or min(durations) <= 0:
        return Fraction(1000) / durations[0] if durations and durations[0] > 0 else Fraction(10), ()
    tick = Fraction(math.gcd(*(int(d * 1000) for d in durations)), 1000)
    return Fraction(1000) / tick, tuple(int(d / tick) for d in durations)


# --- a folder of pictures, and npz --------------------------------------------------------------------------


def _write_folder(path: Path, frames: Frames, note: Note) -> None:
    path.mkdir()
    digits = max(4, len(str(len(frames) - 1)))
    info = _png_text(note, note.shown)
    for i, frame in enumerate(frames):
        Image.fromarray(enlarged(frame, note.enlarged)).save(path / f"frame_{i:0{digits}}.png", "PNG", pnginfo=info)
    (path / "provenance.json").write_text(note.text() + "\n", encoding="utf-8")


def _read_folder(path: Path) -> Stored:
    files = sorted(path.glob("frame_*.png"))
    notes = path / "provenance.json"
    if not notes.is_file():
        raise ValueError("the folder has no provenance.json, so its rate is not known")
    pictures: list[Frames] = []
    for file in files:
        with open(file, "rb") as opened, Image.open(opened, formats=["PNG"]) as image:
            _cap(*image.size, len(files))
            pictures.append(np.asarray(image.convert("RGB")))
    if notes.stat().st_size > MAX_NOTE:
        raise ValueError("its provenance.json is too large")
    return Stored(pictures, Fraction(10), notes.read_text(encoding="utf-8"))


def _write_npz(path: Path, frames: Frames, note: Note) -> None:
    rate = np.array([note.fps.numerator, note.fps.denominator], np.int64)
    pictures = np.stack([enlarged(frame, note.enlarged) for frame in frames]) if note.enlarged > 1 else frames
    with open(path, "xb") as file:
        np.savez_compressed(file, frames=pictures, fps=rate, metadata=np.array(note.text()))


def _read_npz(path: Path) -> Stored:
    with open(path, "rb") as opened, zipfile.ZipFile(opened) as file:
        colours = ("index", "palette") if "index.npy" in file.namelist() else ("frames",)  # as data sets store them
        for name in (*colours, "fps", "metadata"):
            _check_array(file, f"{name}.npy")
    with np.load(path, allow_pickle=False) as arrays:
        frames = arrays["frames"] if colours == ("frames",) else _coloured(arrays["index"], arrays["palette"])
        (above, below), text = arrays["fps"].tolist(), str(arrays["metadata"])
    check_frames(frames, Fraction(above, below))
    return Stored([*frames], Fraction(above, below), text)


def _coloured(index: NDArray[Any], palette: NDArray[Any]) -> Frames:
    """`palette[index]`, where that is a clip."""
    if index.ndim != 3 or index.dtype != np.uint8 or palette.shape[1:] != (3,) or palette.dtype != np.uint8:
        raise ValueError(f"its index is {index.dtype} {index.shape}, its palette {palette.dtype} {palette.shape}")
    _cap(index.shape[2], index.shape[1], index.shape[0])
    return np.asarray(palette[index])


def _check_array(file: zipfile.ZipFile, name: str) -> None:
    """Look at an array's header before its data: a small zip can unpack to any size."""
    with file.open(name) as member:
        version = np.lib.format.read_magic(member)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = header(member)
    if kind.itemsize * int(np.prod(shape, dtype=object)) > 3 * MAX_PIXELS:
        raise ValueError(f"its {name} is {shape}, more than is opened safely")


FORMATS: dict[str, Format] = {
    ".mp4": Format(
        name="mp4",
        keeps="half the colour",
        largest=16_384,
        write=_encoder("mp4", "libx264", {"crf": "18"}),
        read=_decoder("mp4"),
    ),
    ".webm": Format(
        name="webm",
        keeps="half the colour",
        largest=16_384,
        write=_encoder("webm", "libvpx-vp9", {"crf": "15", "b": "0", "row-mt": "1"}),
        read=_decoder("webm"),
    ),
    ".gif": Format(name="gif", keeps="256 colours", largest=65_535, write=_write_gif, read=_reader("GIF")),
    ".webp": Format(name="webp", keeps="every pixel", largest=16_383, write=_write_webp, read=_reader("WEBP")),
    ".apng": Format(name="animated png", keeps="every pixel", largest=65_535, write=_write_png, read=_reader("PNG")),
    ".png": Format(name="animated png", keeps="every pixel", largest=65_535, write=_write_png, read=_reader("PNG")),
    ".npz": Format(name="npz", keeps="every pixel", largest=2**31, write=_write_npz, read=_read_npz),
    "": Format(name="a folder of png", keeps="every pixel", largest=65_535, write=_write_folder, read=_read_folder),
}  # by suffix; "" is a folder


# --- contact sheets -----------------------------------------------------------------------------------------


def write_contact_sheet(
    path: str | os.PathLike[str],
    clips: Iterable[Frames],
    labels: Sequence[str] = (),
    *,
    scale: int = 2,
    overwrite: bool = True,
) -> Path:
    """Write a png in which every row is a clip and every column a frame, each enlarged `scale` times, labels
    above the rows.

    The clips (each (t, h, w, 3) uint8) may differ in length and size. Raises as `write` does.
    """
    if Path(path).suffix.lower() != ".png":
        raise UnsupportedFormat(f"a contact sheet is a png, not {Path(path).name}", hint="end its name in .png")
    rows = [_row(clip, label, scale) for clip, label in _labelled([*clips], labels)]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    target = check_target(path, *sheet.size, overwrite=overwrite)
    with _replacing(target) as temporary, open(temporary, "xb") as file:
        sheet.save(file, "PNG")
    return target


PAPER, INK, GAP = (255, 255, 255), (40, 40, 40), 4  # colours; pixels between frames


def _labelled(clips: Sequence[Frames], labels: Sequence[str]) -> Iterable[tuple[Frames, str]]:
    if not clips:
        raise InvalidVideo("a contact sheet needs at least one clip")
    if labels and len(labels) != len(clips):
        raise InvalidVideo(f"{len(clips)} clips have {len(labels)} labels", hint="one label a clip, or none")
    return zip(clips, labels or [""] * len(clips), strict=True)


def _row(clip: Frames, label: str, scale: int) -> Image.Image:
    check_frames(clip, Fraction(1))
    t, h, w, _ = clip.shape
    font = ImageFont.load_default(size=12)
    head = 18 if label else 0
    wide = max(t * (w * scale + GAP), int(font.getlength(label)) + 2 * GAP)
    row = Image.new("RGB", (wide, head + h * scale + GAP), PAPER)
    ImageDraw.Draw(row).text((2, 1), label, INK, font=font)
    for i, frame in enumerate(clip):
        row.paste(Image.fromarray(enlarged(frame, scale)), (i * (w * scale + GAP), head))
    return row
