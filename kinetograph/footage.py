"""Footage: a clip in a file that a request leans on, read, compared with what is asked for, and brought to its size.

Nothing is resampled in silence: footage of another length, size or rate than the request is refused, unless `fit` says
how it shall be brought there.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from PIL import Image

from kinetograph.errors import InvalidRequest, UnknownName
from kinetograph.media import Frames
from kinetograph.request import VideoRequest
from kinetograph.video import Video, fingerprint

Fit = Literal["", "crop", "stretch"]
FITS: tuple[str, ...] = get_args(Fit)
WISH = "or let it be resampled with fit=crop or fit=stretch"


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A clip as it stands in its file. `field` is the request's word for it, which errors name.

    With a `fit`, frames are chosen by their moments, from the second `begin` on, and brought to the size of the
    request: "crop" keeps the proportions and cuts what is over, "stretch" does not.
    """

    path: str
    frames: Frames
    fps: Fraction
    field: str
    fit: Fit = ""
    begin: float = 0.0
    prompt: str = ""

    @property
    def sha256(self) -> str:
        """The fingerprint of its frames."""
        return fingerprint(self.frames)

    def settings(self, **others: Any) -> dict[str, Any]:
        """Settings of a request: what the others leave open is taken from the clip, unless it is resampled."""
        given = {name: value for name, value in others.items() if value is not None}
        if self.fit:
            return given
        count, height, width, _ = self.frames.shape
        return {"frames": count, "fps": self.fps, "width": width, "height": height} | given

    def fitted(self, request: VideoRequest) -> Frames:
        """Its frames, one for each of the request's. Raises InvalidRequest, with what would fit, for another length,
        size or rate."""
        if not self.fit:
            self._check(request)
            return self.frames
        return resized(self.frames[self._moments(request)], request.width, request.height, self.fit)

    def _check(self, request: VideoRequest) -> None:
        count, height, width, _ = self.frames.shape
        if self.begin:
            hint = "only footage that is resampled begins later: say fit=crop"
            raise InvalidRequest(f"{self.path} would begin at {self.begin:g} s", field=self.field, hint=hint)
        if (width, height) != (request.width, request.height):
            facts = f"is {width}x{height}, the clip {request.width}x{request.height}"
            raise self._unfit(facts, f"--size {width}x{height}")
        if self.fps != request.fps:
            facts = f"runs at {self.fps} frames per second, the clip at {request.fps}"
            raise self._unfit(facts, f"--fps {self.fps}")
        if count != request.frames:
            raise self._unfit(f"has {count} frames, the clip {request.frames}", f"--frames {count}")

    def _unfit(self, facts: str, remedy: str) -> InvalidRequest:
        return InvalidRequest(f"{self.path} {facts}", field=self.field, hint=f"use {remedy}, {WISH}")

    def _moments(self, request: VideoRequest) -> list[int]:
        """Which of its frames is shown at the moment of each frame of the request."""
        begin = Fraction(self.begin).limit_denominator(1_000_000)
        moments = [int((begin + k / request.fps) * self.fps) for k in range(request.frames)]
        enough = sum(moment < len(self.frames) for moment in moments)
        if enough < len(moments):
            has, needs = len(self.frames) / self.fps, begin + request.frames / request.fps
            raise InvalidRequest(
                f"{self.path} ends after {float(has):.3g} s, and {float(needs):.3g} s of it would be needed",
                field=self.field,
                hint=f"use --frames {enough}" if enough else "let it begin earlier",
            )
        return moments


def read(path: str | os.PathLike[str], field: str, sha256: str = "", fit: Fit = "", begin: float = 0.0) -> Footage:
    """Read footage; with a sum, compare it. Raises CannotRead, and InvalidRequest where the file shows something else.

    Its path is made absolute, so that it means the same later.
    """
    video = Video.load(path)
    if sha256 and sha256 != (found := fingerprint(video.frames)):
        raise InvalidRequest(
            f"{os.fspath(path)} does not show what it showed when the request was made",
            field=field,
            hint=f"its frames' sha256 is {found[:16]}, not {sha256[:16]}",
        )
    prompt = video.provenance.request.prompt if video.provenance else ""
    whole = os.fspath(Path(path).resolve())
    return Footage(path=whole, frames=video.frames, fps=video.fps, field=field, fit=fit, begin=begin, prompt=prompt)


def from_source(path: str | os.PathLike[str], fit: Fit = "", begin: float = 0.0, **others: Any) -> dict[str, Any]:
    """Settings of a request that edits this clip, which the option `source` names. Raises CannotRead."""
    clip = read(path, "source", fit=fit, begin=begin)
    options: Mapping[str, Any] = others.pop("options", None) or {}
    given = {"source": clip.path, "source_sha256": clip.sha256} | ({"fit": fit} if fit else {})
    return clip.settings(**others) | {"options": {**options, **given, **({"begin": begin} if begin else {})}}


def fit(name: str) -> Fit:
    """A way to bring footage to a size, by its name. Raises UnknownName."""
    if name not in FITS:
        raise UnknownName("way to fit a clip", name, FITS[1:])
    return cast(Fit, name)


def resized(frames: Frames, width: int, height: int, fit: Fit = "stretch") -> Frames:
    """Frames (t, h, w, 3) at another size: "crop" keeps the proportions and cuts what is over, "stretch" does not."""
    _, h, w, _ = frames.shape
    if (w, h) == (width, height):
        return frames
    box = (0.0, 0.0, float(w), float(h))
    if fit == "crop":
        scale = min(w / width, h / height)
        left, top = (w - width * scale) / 2, (h - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
    bilinear = Image.Resampling.BILINEAR  # Pillow's reads the mean of what it shrinks
    return np.stack([np.asarray(Image.fromarray(f).resize((width, height), bilinear, box=box)) for f in frames])
