"""Requests that go on from a picture or a clip: what its file says about the clip to be made."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from kinetograph import media
from kinetograph.errors import InvalidRequest
from kinetograph.video import Video, fingerprint


@dataclass(frozen=True)
class Start:
    """What comes first: frames in a file, and what is known of them."""

    path: str
    frames: media.Frames
    fps: Fraction | None = None
    prompt: str = ""

    def settings(self, option: str = "start", **others: Any) -> dict[str, Any]:
        """Settings of a request whose clip begins with these frames, or does with them whatever the option that names
        them says. Others go before their size and rate."""
        _, height, width, _ = self.frames.shape
        options: Mapping[str, Any] = others.pop("options", None) or {}
        given = {name: value for name, value in others.items() if value is not None}
        start = {option: self.path, f"{option}_sha256": fingerprint(self.frames)}
        return {"width": width, "height": height, "fps": self.fps} | given | {"options": {**options, **start}}


def from_picture(path: str | os.PathLike[str]) -> Start:
    """A single picture. Raises CannotRead, and InvalidRequest for a clip of several frames."""
    frames = media.read_frames(path)
    if len(frames) != 1:
        message = f"{os.fspath(path)} has {len(frames)} frames, a picture has one"
        raise InvalidRequest(message, field="start", hint="to go on from a clip, use `kinetograph extend`")
    return Start(os.fspath(Path(path).resolve()), frames)


def from_clip(path: str | os.PathLike[str]) -> Start:
    """A clip, with its rate, and its prompt where it says how it was made. Raises CannotRead."""
    video = Video.load(path)
    prompt = video.provenance.request.prompt if video.provenance else ""
    return Start(os.fspath(Path(path).resolve()), video.frames, video.fps, prompt)
