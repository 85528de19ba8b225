"""Control clips: what a video says of the clip to be made, as edges, depth, poses, or as it is.

One control is one line of text, `KIND=FILE` and what else is said of it, which is how a request records it:

    edge=dance.mp4,weights=models/canny,scale=0.8

`Control.parse` and `str` are each other's opposite.
"""

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from kinetograph import footage, hub, media
from kinetograph import weights as bundled
from kinetograph.errors import InvalidRequest, InvalidVideo, KinetographError, UnknownName, did_you_mean
from kinetograph.footage import FITS, Fit, Footage
from kinetograph.media import Frames

Kind = Literal["edge", "depth", "pose", "plain"]
KINDS: tuple[str, ...] = get_args(Kind)
WEIGHTS: Mapping[str, str] = {
    "edge": "lllyasviel/sd-controlnet-canny",
    "depth": "lllyasviel/sd-controlnet-depth",
    "pose": "lllyasviel/sd-controlnet-openpose",
}  # the ControlNets of Stable Diffusion 1, where none is named
Estimator = Callable[[Frames], Any]  # frames (t, h, w, 3) -> depth (t, h, w), near is large; or skeletons (t, h, w, 3)


@dataclass(frozen=True, kw_only=True)
class Control:
    """One control of a request: a clip, what is taken from it, and the ControlNet that obeys it.

    `edge` finds the edges of a video (Canny, `low` and `high` are its thresholds); `depth` takes the brightness of a
    depth clip, near is bright, and stretches it over the clip as a whole; `pose` and `plain` take the clip as it is.
    `weights` is the folder of the ControlNet, `scale` its strength, and it is asked from the part `since` to the part
    `until` of the steps. `smooth` averages depth over so many frames. `fit` and `begin` are as for footage. The sums
    are of the clip's frames and of the ControlNet's weights; "" is not yet known.
    """

    kind: Kind
    path: str
    weights: str = ""
    scale: float = 1.0
    since: float = 0.0
    until: float = 1.0
    low: float = 100.0
    high: float = 200.0
    smooth: int = 1
    fit: Fit = ""
    begin: float = 0.0
    sha256: str = ""
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        kind(self.kind)
        if not self.path:
            raise InvalidRequest(f"the control {self.kind} names no file", field="control", hint="write edge=clip.mp4")
        if self.fit not in FITS:
            raise _illegal("fit", self.fit, "crop cuts what is over, stretch squeezes; leave it out to change nothing")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:  # also where it is no number
                raise _illegal(name, value, f"{low:g} to {high:g}")
        for least, most in (("since", "until"), ("low", "high")):
            if not getattr(self, least) < getattr(self, most):
                raise _illegal(least, getattr(self, least), f"it must be below {most}, {getattr(self, most):g}")

    @classmethod
    def parse(cls, text: str) -> "Control":
        """A control from its line of text. Raises InvalidRequest and UnknownName."""
        name, equals, rest = text.partition("=")
        if not (name and equals):
            raise InvalidRequest(f"{text!r} is no control", field="control", hint="write edge=clip.mp4")
        path, *said = re.split(r",(?=[a-z0-9_]+=)", rest)
        return cls(kind=kind(name), path=path, **dict(map(_setting, said)))

    def __str__(self) -> str:
        said = [f"{f.name}={getattr(self, f.name)}" for f in fields(self)[2:] if getattr(self, f.name) != f.default]
        return ",".join([f"{self.kind}={self.path}", *said])


_RANGES = (
    ("scale", 0.0, 10.0),
    *(("since", 0.0, 1.0), ("until", 0.0, 1.0)),
    *(("low", 0.0, 5000.0), ("high", 0.0, 5000.0)),
    *(("smooth", 1, 1000), ("begin", 0.0, 1e6)),
)
_READ: Mapping[str, Callable[[str], Any]] = {
    f.name: cast(type, f.type) if f.type in (float, int) else str for f in fields(Control)[2:]
}


def _illegal(name: str, value: object, hint: str) -> InvalidRequest:
    return InvalidRequest(f"a control's {name} is {value!r}", field="control", hint=hint)


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if name not in _READ:
        hint = did_you_mean(name, _READ)
        raise InvalidRequest(f"a control has no setting {name!r}", field="control", hint=hint)
    try:
        return name, _READ[name](value)
    except ValueError as error:
        raise _illegal(name, value, "it is a number") from error


def kind(name: str) -> Kind:
    """A kind of control by its name. Raises UnknownName."""
    if name not in KINDS:
        raise UnknownName("kind of control", name, KINDS)
    return cast(Kind, name)


# --- from a file to a control clip ------------------------------------------------------------------------------------


def opened(control: Control) -> Footage:
    """The footage of a control. Raises CannotRead, and InvalidRequest where its file shows something else than the
    control says."""
    return footage.read(control.path, "control", control.sha256, control.fit, control.begin)


def settings(asked: Sequence[Control], **others: Any) -> dict[str, Any]:
    """Settings of a request with these controls, each with the sum of its frames: length, size and rate are those of
    the first that is not resampled, unless the others say."""
    if not asked:
        return others
    clips = [opened(control) for control in asked]
    noted = [str(_noted(control, clip)) for control, clip in zip(asked, clips)]
    options: Mapping[str, Any] = others.pop("options", None) or {}
    leading = next((clip for clip in clips if not clip.fit), clips[0])
    return leading.settings(**others) | {"options": {**options, "control": noted}}


def _noted(control: Control, clip: Footage) -> Control:
    """A control with the sums of what it names."""
    known = replace(control, path=clip.path, sha256=clip.sha256)
    return completed(known, {}) if control.weights else known


def completed(control: Control, companions: Mapping[str, str]) -> Control:
    """A control with everything decided: its ControlNet, one of these where it names none, and that one's sum."""
    weights, found = control.weights or companions.get(control.kind, ""), control.weights_sha256
    try:
        model = hub.locate(bundled.path_of(weights))
        name = weights if weights in bundled.pictures() else os.fspath(model.path)
        weights, found = model.reference if model.revision else name, found or hub.digest(model.path)
    except KinetographError:  # whoever loads it says this again
        pass
    return replace(control, weights=weights, weights_sha256=found)


def drawn(control: Control, frames: Frames) -> Frames:
    """What a control takes from the frames of its clip."""
    if control.kind == "edge":
        return edges(frames, control.low, control.high)
    if control.kind == "depth":
        return depth(frames.astype(np.float32).mean(axis=3), control.smooth)
    return frames


def edges(frames: Frames, low: float = 100.0, high: float = 200.0) -> Frames:
    """White edges on black, by OpenCV's Canny with these thresholds, frame by frame (t, h, w, 3)."""
    import cv2

    found = np.stack([cv2.Canny(np.ascontiguousarray(frame), low, high) for frame in frames])
    return np.repeat(found[..., None], 3, axis=3).astype(np.uint8)


def depth(maps: NDArray[Any], smooth: int = 1) -> Frames:
    """Depth maps (t, h, w), near is large, as grey frames (t, h, w, 3) with one black and one white for the whole clip.

    A still clip gives still frames: what one frame shows never changes the brightness of another. `smooth` first
    averages over so many frames. A clip without any depth is middle grey. Raises InvalidVideo for maps that are none.
    """
    if maps.ndim != 3 or 0 in maps.shape or not np.isfinite(maps).all():
        what = f"{maps.dtype} {maps.shape}" if maps.ndim != 3 or 0 in maps.shape else "not finite everywhere"
        raise InvalidVideo(f"depth is {what}", hint="an estimator gives finite numbers (time, height, width)")
    even = _averaged(maps.astype(np.float64), smooth)
    low, high = float(even.min()), float(even.max())
    grey = np.full(even.shape, 0.5) if high == low else (even - low) / (high - low)
    return np.repeat(np.rint(grey * 255).astype(np.uint8)[..., None], 3, axis=3)


def _averaged(maps: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """The mean of so many maps around each; of fewer at the ends."""
    if width == 1:
        return maps
    spans = [slice(max(0, k - (width - 1) // 2), k + width // 2 + 1) for k in range(len(maps))]
    return np.stack([maps[span].mean(axis=0) for span in spans])


# --- estimators -------------------------------------------------------------------------------------------------------


def estimator(reference: str) -> Estimator:
    """The callable that "module:function" names. It is the user's own code that runs: no request ever names one, or a
    file from a stranger could.

    Raises InvalidRequest where there is none.
    """
    module, colon, name = reference.partition(":")
    hint = "write it as module:function; the module must be importable, for example from PYTHONPATH"
    if not (module and colon and name):
        raise InvalidRequest(f"{reference!r} names no estimator", field="estimator", hint=hint)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        message = f"the estimator {reference} cannot be loaded: {error}"
        raise InvalidRequest(message, field="estimator", hint=hint) from error
    if not callable(found):
        raise InvalidRequest(f"the estimator {reference} is {type(found).__name__}, no function", field="estimator")
    return cast(Estimator, found)


def estimated(kind: Kind, frames: Frames, estimate: Estimator, smooth: int = 1) -> Frames:
    """A control clip from a raw one by an estimator: depth (t, h, w), or pictures (t, h, w, 3) such as skeletons.

    Raises InvalidVideo where the estimator's answer is no such thing.
    """
    found = np.asarray(estimate(frames))
    if found.shape[:3] != frames.shape[:3]:
        hint = f"it was given {frames.shape} and should give as many frames of the same size"
        raise InvalidVideo(f"the estimator gave {found.dtype} {found.shape}", hint=hint)
    if kind == "depth" and found.ndim == 3:
        return depth(found, smooth)
    media.check_frames(found, Fraction(1))
    return depth(found.astype(np.float32).mean(axis=3), smooth) if kind == "depth" else found


def made(kind: Kind, path: str | os.PathLike[str], estimate: Estimator | None = None, **how: Any) -> Footage:
    """The control clip that a raw clip gives: what the command `control` writes. `how` is as for Control. Raises
    CannotRead, InvalidRequest, InvalidVideo."""
    control = Control(kind=kind, path=os.fspath(path), **how)
    clip = opened(control)
    if estimate is None:
        return replace(clip, frames=drawn(control, clip.frames))
    return replace(clip, frames=estimated(kind, clip.frames, estimate, control.smooth))
