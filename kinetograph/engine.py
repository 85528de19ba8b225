"""The seam: a request goes in, a video comes out, and an engine is whatever does that."""

import math
import os
import platform
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated, Any, Protocol, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from kinetograph import __version__
from kinetograph.errors import InvalidRequest, InvalidVideo, NoProvenance, did_you_mean
from kinetograph.media import Frames, format_of
from kinetograph.request import VideoRequest
from kinetograph.shelf import ENGINES
from kinetograph.video import Provenance, Video, fingerprint, frame_fingerprints

DEFAULT_ENGINE = "flow"
SEED_BITS = 32  # of the 63 that are legal: a seed that is drawn should be short enough to copy by hand


# --- what an engine is --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a video has come: `step` of `steps`, and perhaps one frame (h, w, 3) as it looks by now."""

    step: int
    steps: int
    preview: Frames | None = None


OnProgress = Callable[[Progress], None]  # to give the video up, it raises Cancelled


def ignore(progress: Progress) -> None:
    """The progress callback of whoever does not want to know."""


class Engine(Protocol):
    """A loaded engine, for one thread at a time.

    `device` is what it runs on ("cpu", "cuda:0"), `weights_digest` the sha256 of its checkpoint or "",
    `versions` what its frames depend on beyond python, numpy and this package: torch, the CPU's capability.
    """

    @property
    def device(self) -> str: ...

    @property
    def weights_digest(self) -> str: ...

    @property
    def versions(self) -> Mapping[str, str]: ...

    def generate(self, request: VideoRequest, on_progress: OnProgress) -> Video:
        """Make the video, without provenance. `on_progress` may raise Cancelled, which is let through."""
        ...


class EngineModule(Protocol):
    """What stands on the shelf of engines: `info` is cheap and imports no torch, `load` does the work."""

    def info(self, weights: str) -> "EngineInfo": ...

    def load(self, weights: str, device: str) -> Engine: ...


class Options(BaseModel):
    """Settings that only one engine knows: an engine that has some subclasses this. Refuses strangers."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Words = Annotated[str, Field(json_schema_extra={"format": "words"})]  # an option that is text and names no file

# Options that name a file of frames say by their kind what becomes of it. Beside `start` stands `start_sha256`.
FirstPicture = Annotated[str, Field(json_schema_extra={"format": "first-picture"})]  # a picture that comes first
FirstFrames = Annotated[str, Field(json_schema_extra={"format": "first-frames"})]  # a picture or a clip; more follows
ChangedClip = Annotated[str, Field(json_schema_extra={"format": "changed-clip"})]  # a clip of which another is made


def closed(options: type[Options]) -> frozenset[str]:
    """The options that no stranger may set through a server: those that could name a file of its machine.

    That is every text that may be anything, unless it is said to be `Words` or is a prompt by its name: whoever writes
    an engine need not think of servers to be safe on one.
    """
    properties = options.model_json_schema().get("properties", {})
    return frozenset(name for name, said in properties.items() if "prompt" not in name and _any_text(said))


def _any_text(schema: Mapping[str, Any]) -> bool:
    """Whether a JSON schema lets any text through, be it in a list; what it does not say is anything."""
    if "enum" in schema or "const" in schema or schema.get("format") == "words":
        return False
    inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("prefixItems", ())]
    inner += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), Mapping)]
    if inner:
        return any(map(_any_text, inner))
    return schema.get("type") not in ("integer", "number", "boolean", "null")


def _kind(name: str, field: FieldInfo) -> object:
    """What an option that names frames does with them; a `start` that does not say so goes on from them."""
    said = field.json_schema_extra
    kind = said.get("format") if isinstance(said, dict) else None
    return kind or ("first-frames" if name == "start" else None)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes that an engine can make, in pixels.

    Each side lies in `minimum` ... `maximum`, is a multiple of `multiple`, and, where `square`, equals the
    other.
    """

    minimum: int
    maximum: int
    multiple: int = 1
    square: bool = False

    def nearest(self, width: int, height: int) -> tuple[int, int]:
        """The legal size nearest to this one; the size itself where it is legal."""
        if self.square:
            width = height = max(width, height) if width != height else width
        return self._side(width), self._side(height)

    def _side(self, side: int) -> int:
        low, high = -(-self.minimum // self.multiple), self.maximum // self.multiple
        return min(max(round(side / self.multiple), low), high) * self.multiple


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What an engine is and can do, known without loading it. Sizes in pixels, `fps` in frames per second.

    `width`, `height`, `frames` and `fps` are what it does unless told otherwise; legal counts of frames are
    `min_frames` and every `frame_step`-th after it, up to `max_frames`; `trained` is whether a trained model draws the
    frames, `weights` the sha256 of its checkpoint or "".
    """

    reference: str
    summary: str
    licence: str
    width: int
    height: int
    frames: int
    fps: Fraction
    sizes: Sizes
    min_frames: int
    max_frames: int
    frame_step: int = 1
    Options: type[Options] = Options
    weights: str = ""
    trained: bool = True

    @property
    def begins(self) -> str:
        """The option that names a picture which comes first, "" where none does."""
        return self._naming("first-picture", "first-frames")

    @property
    def continues(self) -> str:
        """The option that names a clip which comes first, the video holding it and going on; "" where none does."""
        return self._naming("first-frames")

    @property
    def edits(self) -> str:
        """The option that names a clip to be changed into another of its length, "" where none does."""
        return self._naming("changed-clip")

    @property
    def frame_options(self) -> set[str]:
        """The options that name frames, whatever becomes of them."""
        return {self.begins, self.continues, self.edits} - {""}

    def _naming(self, *kinds: str) -> str:
        return next((name for name, field in self.Options.model_fields.items() if _kind(name, field) in kinds), "")

    def request(
        self,
        prompt: str,
        *,
        seed: int | None = None,
        width: int | None = None,
        height: int | None = None,
        frames: int | None = None,
        fps: Fraction | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> VideoRequest:
        """Settle every default, the seed included, and check the result. Here None means "you choose"."""
        return self.check(
            VideoRequest(
                prompt=prompt,
                seed=secrets.randbits(SEED_BITS) if seed is None else seed,
                width=self.width if width is None else width,
                height=self.height if height is None else height,
                frames=self.frames if frames is None else frames,
                fps=self.fps if fps is None else fps,
                options=options or {},
            )
        )

    def check(self, request: VideoRequest) -> VideoRequest:
        """The request with its options completed.

        Raises InvalidRequest, with the nearest legal value, for what this engine cannot honour.
        """
        self._check_size(request)
        near = self._nearest_frames(request.frames)
        if request.frames != near:
            every = f", {self.min_frames} and every {self.frame_step}th after it" if self.frame_step > 1 else ""
            raise InvalidRequest(
                f"{self.reference} makes {self.min_frames} to {self.max_frames} frames{every}, not {request.frames}",
                field="frames",
                hint=f"nearest: {near}",
            )
        return replace(request, options=self.settled(request.options))

    def _nearest_frames(self, frames: int) -> int:
        most = (self.max_frames - self.min_frames) // self.frame_step
        return (
            self.min_frames + min(max(round((frames - self.min_frames) / self.frame_step), 0), most) * self.frame_step
        )

    def _check_size(self, request: VideoRequest) -> None:
        near = self.sizes.nearest(request.width, request.height)
        if near != (request.width, request.height):
            raise InvalidRequest(
                f"{self.reference} cannot make {request.width}x{request.height}",
                field="width" if near[0] != request.width else "height",
                hint=f"nearest: {near[0]}x{near[1]}",
            )

    def settled(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options completed and in their types; one that is None by default is left out unless it is given.

        Raises InvalidRequest for one that is unknown or illegal.
        """
        for name in options:
            if name not in self.Options.model_fields:
                if name in _ABILITIES:
                    what, who = _ABILITIES[name]
                    hint = f"name an engine that can, for example --engine {who}"
                    raise InvalidRequest(f"{self.reference} cannot {what}", field=name, hint=hint)
                hint = did_you_mean(name, self.Options.model_fields)
                raise InvalidRequest(f"{self.reference} has no option {name!r}", field=name, hint=hint)
        try:
            return self.Options.model_validate(dict(options)).model_dump(mode="json", exclude_none=True)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "options"
            raise InvalidRequest(f"the option {name} is {first['input']!r}", field=name, hint=first["msg"]) from error


_ABILITIES = {
    "start": ("go on from frames", "flow"),
    "source": ("edit a clip", "zero"),
    "control": ("obey control clips", "zero"),
}  # options that a command of its own asks for: what they ask of an engine, and one that has them


# --- finding one --------------------------------------------------------------------------------------------


def resolve(reference: str) -> tuple[EngineModule, str]:
    """The engine's module and its weights from "name" or "name:weights". Raises UnknownName."""
    name, _, weights = reference.partition(":")
    return cast(EngineModule, ENGINES[name]), weights


def describe(reference: str) -> EngineInfo:
    """What an engine is and can do, without loading it.

    Raises UnknownName or, for weights that are missing or damaged, WeightsError.
    """
    module, weights = resolve(reference)
    return module.info(weights)


# --- making a video -----------------------------------------------------------------------------------------


class Warm:
    """The engine that was used last, kept loaded: the second video does not wait for the weights again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[str, str, str] | None = None
        self._engine: Engine | None = None

    def get(self, reference: str, device: str, digest: str) -> Engine:
        """The engine for this reference, loaded unless it is the last one. New weights load it anew."""
        key = (reference, device, digest)
        with self._lock:
            if self._engine is None or self._key != key:
                self._key = self._engine = None  # the old one goes first: two may not fit into memory
                module, weights = resolve(reference)
                self._engine = module.load(weights, device)
                self._key = key
            return self._engine

    def clear(self) -> None:
        """Let the engine go, and with it its memory."""
        with self._lock:
            self._key = self._engine = None


warm = Warm()


def generate(reference: str, request: VideoRequest, on_progress: OnProgress = ignore, *, device: str = "auto") -> Video:
    """Make one video with the engine that `reference` names, and say in its provenance how it was made.

    Raises UnknownName, InvalidRequest, WeightsError, whatever `on_progress` raises (Cancelled), and
    InvalidVideo where the engine did not make what was asked for. The engine stays loaded until another is
    asked for, or `warm.clear()`.
    """
    info = describe(reference)
    request = info.check(request)
    engine = warm.get(reference, device, info.weights)
    start = time.perf_counter()
    video = engine.generate(request, on_progress)
    seconds = time.perf_counter() - start
    _check_result(reference, request, video)
    return stamped(video, reference, request, engine, seconds, trained=info.trained)


def _check_result(reference: str, request: VideoRequest, video: Video) -> None:
    wanted = (request.frames, request.height, request.width, 3)
    if video.frames.shape != wanted or video.fps != request.fps:
        raise InvalidVideo(
            f"{reference} made {video.frames.shape} at {video.fps} fps, asked for {wanted} at {request.fps}",
            hint="this is a fault of the engine",
        )


def stamped(
    video: Video, reference: str, request: VideoRequest, engine: Engine, seconds: float, *, trained: bool
) -> Video:
    """The video with its provenance: who made these frames, of what request, in how many seconds."""
    here = {
        "kinetograph": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{sys.platform} {platform.machine()}",
    }
    made = Provenance(
        engine=reference,
        request=request,
        seconds=round(seconds, 4),
        device=engine.device,
        weights=engine.weights_digest,
        versions={**here, **engine.versions},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        frames_sha256=fingerprint(video.frames),
        frame_hashes=frame_fingerprints(video.frames),
        trained=trained,
    )
    return Video(video.frames, video.fps, made)


# --- making it again ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reproduction:
    """What came of making a video again.

    `same` is whether every frame came out bit by bit as it did the first time (and, from a lossless file,
    whether the file still holds those frames); `differences` says in words what differs, in the making and
    in the outcome; `distance` is the mean difference between the pixels at hand and the new ones, of 255:
    0 for a lossless file, about 1 for an honest lossy one. `video` is the new one.
    """

    same: bool
    differences: tuple[str, ...]
    distance: float
    video: Video = field(repr=False)


def reproduce(
    original: Video | str | os.PathLike[str], on_progress: OnProgress = ignore, *, device: str = "auto"
) -> Reproduction:
    """Make a video, or the video in a file, again from its provenance, and compare the frames.

    Works for lossy files too: the fingerprints are of the frames before they were encoded. Raises
    NoProvenance for a video that does not say how it was made, and whatever `generate` raises.
    """
    video = original if isinstance(original, Video) else Video.load(original)
    if video.provenance is None:
        name = "the video" if isinstance(original, Video) else os.fspath(original)
        raise NoProvenance(
            f"{name} does not say how it was made", hint="it is foreign, or was saved without provenance"
        )
    again = generate(video.provenance.engine, video.provenance.request, on_progress, device=device)
    new = cast(Provenance, again.provenance)
    differences = [*_circumstances(video.provenance, new), *_outcome(video, again)]
    same = new.frames_sha256 == video.provenance.frames_sha256
    if not isinstance(original, Video) and _altered(original, video):
        same = False
        differences.append("file: the frames in it are not those that its provenance speaks of")
    return Reproduction(same, tuple(differences), _distance(video, again), again)


def _altered(path: str | os.PathLike[str], video: Video) -> bool:
    """Whether a file that keeps every pixel holds other frames than were made. Lossy ones cannot tell."""
    exact = format_of(path).keeps == "every pixel"
    return exact and fingerprint(video.frames) != cast(Provenance, video.provenance).frames_sha256


def _distance(video: Video, again: Video) -> float:
    if video.frames.shape != again.frames.shape:
        return math.inf
    return float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in zip(video.frames, again.frames)]))


def _circumstances(old: Provenance, new: Provenance) -> list[str]:
    """How the making differed: weights, device, versions."""
    found = []
    if old.weights != new.weights:
        found.append(f"weights: {old.weights[:16] or 'none'} then, {new.weights[:16] or 'none'} now")
    if old.device != new.device:
        found.append(f"device: {old.device} then, {new.device} now")
    for name in sorted({*old.versions, *new.versions}):
        then, now = old.versions.get(name, "none"), new.versions.get(name, "none")
        if then != now:
            found.append(f"{name}: {then} then, {now} now")
    return found


def _outcome(video: Video, again: Video) -> list[str]:
    """How the frames differ: which, how many and, where the old ones are at hand exactly, by how much."""
    old, new = cast(Provenance, video.provenance), cast(Provenance, again.provenance)
    if old.frames_sha256 == new.frames_sha256:
        return []
    apart = [i for i, (a, b) in enumerate(zip(old.frame_hashes, new.frame_hashes)) if a != b]
    found = [f"frames: {len(apart)} of {len(new.frame_hashes)} differ, the first is frame {apart[0]}"] if apart else []
    if len(old.frame_hashes) != len(new.frame_hashes):
        found.append(f"frames: {len(old.frame_hashes)} then, {len(new.frame_hashes)} now")
    if video.frames.shape == again.frames.shape and fingerprint(video.frames) == old.frames_sha256:
        most = int(np.abs(video.frames.astype(np.int16) - again.frames).max())
        found.append(f"pixels: at most {most} of 255 apart")
    return found or ["frames: their fingerprint differs"]
