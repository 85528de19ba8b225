"""Video and Provenance: frames, their rate, and how they were made."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kinetograph import media
from kinetograph.errors import KinetographError, NoProvenance
from kinetograph.media import Frames
from kinetograph.request import FrozenMapping, VideoRequest

SCHEMA = 1  # grows when a reader of old files would misunderstand new ones
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"  # the vocabulary of IPTC and C2PA


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How one video was made: enough to make it again, and to tell whether it came out the same.

    `engine` is a reference ("gan", "render:circle"), `seconds` the time that making the frames took,
    `weights` the sha256 of the checkpoint ("" where there is none), `versions` what was installed,
    `created` a moment in UTC (ISO 8601). `frames_sha256` is `fingerprint(frames)`, `frame_hashes` one
    short hash for each frame; both are of the frames before any enlargement or encoding. `enlarged` is the
    scale in the file at hand. `trained` says whether a trained model drew the frames; it becomes the
    machine-readable mark of AI-generated media.
    """

    engine: str
    request: VideoRequest
    seconds: float
    device: str
    weights: str
    versions: Mapping[str, str]
    created: str
    frames_sha256: str
    frame_hashes: tuple[str, ...]
    enlarged: int = 1
    trained: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", FrozenMapping(self.versions))
        object.__setattr__(self, "frame_hashes", tuple(self.frame_hashes))

    @property
    def digital_source_type(self) -> str:
        """The IPTC term for how the picture came about; `trainedAlgorithmicMedia` marks AI-generated
        media.
        """
        return SOURCE_TYPES + ("trainedAlgorithmicMedia" if self.trained else "algorithmicMedia")

    def to_dict(self) -> dict[str, Any]:
        """As JSON would have it, with the schema's number and the mark of AI-generated media."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        said |= {
            "request": self.request.to_dict(),
            "versions": dict(self.versions),
            "frame_hashes": [*self.frame_hashes],
        }
        del said["trained"]
        return {"kinetograph_provenance": SCHEMA, **self.mark(), **said}

    def mark(self) -> dict[str, Any]:
        """The mark of AI-generated media alone, which a file keeps that says nothing else."""
        return {"ai_generated": self.trained, "digital_source_type": self.digital_source_type}

    def to_json(self) -> str:
        """One JSON text, on one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Provenance":
        """The opposite of `to_json`. Raises NoProvenance for a text that is damaged, foreign or too new."""
        try:
            said = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NoProvenance(f"the provenance is no JSON ({error})") from error
        if not isinstance(said, dict) or "kinetograph_provenance" not in said:
            raise NoProvenance("the metadata are not kinetograph's, so they do not say how the video was made")
        if said["kinetograph_provenance"] != SCHEMA:
            raise NoProvenance(
                f"the provenance has schema {said['kinetograph_provenance']}; this version reads {SCHEMA}",
                hint="update kinetograph",
            )
        try:
            return cls._from_dict(said)
        except (LookupError, TypeError, ValueError, AttributeError, KinetographError) as error:
            raise NoProvenance(f"the provenance is damaged: {type(error).__name__} {error}") from error

    @classmethod
    def _from_dict(cls, said: Mapping[str, Any]) -> "Provenance":
        return cls(
            engine=_typed(said, "engine", str),
            request=VideoRequest.from_dict(_typed(said, "request", dict)),
            seconds=float(_typed(said, "seconds", int, float)),
            device=_typed(said, "device", str),
            weights=_typed(said, "weights", str),
            versions={str(name): str(version) for name, version in _typed(said, "versions", dict).items()},
            created=_typed(said, "created", str),
            frames_sha256=_typed(said, "frames_sha256", str),
            frame_hashes=tuple(str(digest) for digest in _typed(said, "frame_hashes", list)),
            enlarged=_typed(said, "enlarged", int),
            trained=_typed(said, "ai_generated", bool),
        )


def _typed(said: Mapping[str, Any], name: str, *kinds: type) -> Any:
    value = said[name]
    if not isinstance(value, kinds):
        raise TypeError(f"{name} is {value!r}")
    return value


@dataclass(frozen=True, eq=False)
class Video:
    """Frames (t, h, w, 3), uint8 RGB and read-only; `fps` frames per second; and how they were made, where
    that is known.

    Two videos are compared by their frames: `fingerprint(one.frames) == fingerprint(other.frames)`. Raises
    InvalidVideo for an array that is no clip.
    """

    frames: Frames
    fps: Fraction
    provenance: Provenance | None = field(default=None)

    def __post_init__(self) -> None:
        media.check_frames(self.frames, self.fps)
        object.__setattr__(self, "fps", Fraction(self.fps))
        object.__setattr__(self, "frames", _read_only(self.frames))

    def __reduce__(self) -> tuple[Any, ...]:
        return Video, (
            self.frames,
            self.fps,
            self.provenance,
        )  # by the constructor: a pickled array comes back writable

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.frames.shape[2])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.frames.shape[1])

    @property
    def duration(self) -> Fraction:
        """Seconds, exactly."""
        return len(self.frames) / self.fps

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        provenance: bool = True,
        enlarge: int | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write the video into the container that the name's suffix says; give back where it is.

        `enlarge` draws every pixel as a square of that many pixels; None means what suits the container: 4
        for a small clip in mp4 or webm, 1 otherwise. With `provenance=False` the file says nothing of the
        prompt, the engine or the seed; the mark of AI-generated media stays. Raises UnsupportedFormat,
        OutputExists or CannotWrite.
        """
        scale = media.enlargement(self.width, self.height, Path(path).suffix) if enlarge is None else enlarge
        made = None
        if self.provenance is not None:
            whole = replace(self.provenance, enlarged=scale)
            made = whole.to_json() if provenance else json.dumps(self.provenance.mark())
        return media.write(path, self.frames, self.fps, metadata=made, enlarge=scale, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Video":
        """Read a video and, where the file has it, its provenance.

        Frames that `save` enlarged come back at their own size: each pixel is the mean of its square. From
        npz, webp, png and a folder they come back exactly, from gif up to 256 colours, from mp4 and webm
        nearly. Raises CannotRead, UnsupportedFormat, or NoProvenance where there is a provenance but it
        cannot be understood.
        """
        clip = media.read(path)
        made = None if clip.metadata is None or _only_marked(clip.metadata) else _provenance_of(path, clip)
        return cls(media.reduced(clip.frames, clip.enlarged), clip.fps, made)


def _only_marked(metadata: str) -> bool:
    """Whether this is the mark of AI-generated media and nothing else."""
    try:
        said = json.loads(metadata)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.keys() == {"ai_generated", "digital_source_type"}


def _provenance_of(path: str | os.PathLike[str], clip: media.Clip) -> Provenance:
    try:
        return replace(Provenance.from_json(clip.metadata or ""), enlarged=clip.enlarged)
    except NoProvenance as error:
        raise NoProvenance(f"{os.fspath(path)}: {error}", hint=error.hint) from error


def _read_only(frames: Frames) -> Frames:
    if frames.flags.writeable or frames.base is not None or not frames.flags.c_contiguous:
        frames = np.array(frames, copy=True, order="C")  # nobody else may hold a writable view of it
    frames.flags.writeable = False
    return frames


def fingerprint(frames: Frames) -> str:
    """The sha256 of a clip: its shape and its bytes."""
    digest = hashlib.sha256(repr(tuple(map(int, frames.shape))).encode())
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()


def frame_fingerprints(frames: Frames) -> tuple[str, ...]:
    """A short hash, 16 hexadecimal digits, for each frame."""
    return tuple(hashlib.sha256(np.ascontiguousarray(frame).data).hexdigest()[:16] for frame in frames)
