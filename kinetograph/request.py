"""VideoRequest: what was asked for, complete and checked when made."""

import math
import re
import reprlib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from operator import index
from typing import Any, cast

from kinetograph.errors import InvalidRequest, did_you_mean

MAX_PROMPT = 2_000  # characters
MAX_SEED = 2**63 - 1  # the largest that numpy and torch both take
MAX_SIDE = 8_192  # pixels
MAX_PIXELS = 2**30  # width x height x frames: 3 GiB of RGB
MIN_FPS, MAX_FPS = Fraction(1, 1_000), Fraction(1_000)
MAX_FPS_DENOMINATOR = 1_000_000  # keeps both terms of the rate within the 31 bits that containers have for them


class FrozenMapping(Mapping[str, Any]):
    """A mapping that never changes: sorted by key, hashable, and safe to pickle and to copy."""

    __slots__ = ("_pairs",)
    _pairs: tuple[tuple[str, Any], ...]

    def __init__(self, content: Mapping[str, Any] | None = None) -> None:
        object.__setattr__(self, "_pairs", tuple(sorted((content or {}).items())))

    def __getitem__(self, key: str) -> Any:
        for name, value in self._pairs:
            if name == key:
                return value
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a FrozenMapping never changes")

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenMapping, (dict(self),)

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass(frozen=True, kw_only=True)
class VideoRequest:
    """One video, asked for completely: nothing is left for anybody below to decide.

    Sizes are in pixels, `fps` in frames per second. `options` holds the settings that only one engine
    knows, as plain values (text, numbers, truth values and lists of those). An illegal value raises
    InvalidRequest, which names the field and gives the nearest legal value.
    """

    prompt: str
    seed: int
    width: int
    height: int
    frames: int
    fps: Fraction
    options: Mapping[str, Any] = field(default_factory=FrozenMapping)

    def __post_init__(self) -> None:
        checked = {
            "prompt": check_prompt(self.prompt),
            "seed": _integer("seed", self.seed, 0, MAX_SEED),
            "width": _integer("width", self.width, 1, MAX_SIDE),
            "height": _integer("height", self.height, 1, MAX_SIDE),
            "frames": _integer("frames", self.frames, 1, MAX_PIXELS),
            "fps": check_fps(self.fps),
            "options": _frozen_options(self.options),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_volume()

    def _check_volume(self) -> None:
        longest = MAX_PIXELS // (self.width * self.height)
        if self.frames > longest:
            raise InvalidRequest(
                f"frames is {self.frames}: {self.width}x{self.height}x{self.frames} is more than "
                f"the {MAX_PIXELS} pixels that one video may have",
                field="frames",
                hint=f"at this size at most {longest} frames",
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON would have it; the rate is written as text, "10" or "30000/1001"."""
        plain = {name: _plain(value) for name, value in self.options.items()}
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "fps": str(self.fps),
            "options": plain,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "VideoRequest":
        """The opposite of `to_dict`. Raises InvalidRequest for a missing, unknown or illegal field."""
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise InvalidRequest(f"a request has no field {name!r}", field=name, hint=did_you_mean(name, known))
        for name in known:
            if name not in data and name != "options":
                raise InvalidRequest(f"the request lacks its {name}", field=name)
        fps = data["fps"]
        return cls(**{**data, "fps": parse_fps(fps) if isinstance(fps, str) else fps})


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels from "64x48"."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})\s*", text)
    if not match:
        raise InvalidRequest(
            f"size is {_short(text)}, not a width and a height", field="size", hint="write it as 64x48"
        )
    width, height = (int(side) for side in match.groups())
    return _integer("width", width, 1, MAX_SIDE), _integer("height", height, 1, MAX_SIDE)


def parse_fps(text: str) -> Fraction:
    """A rate from "10", "29.97" (exactly 2997/100) or "30000/1001"."""
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/([0-9]{1,9}))?\s*", text)
    if not match or (match[2] and int(match[2]) == 0):
        raise InvalidRequest(
            f"fps is {_short(text)}, not a rate", field="fps", hint="write it as 10, 29.97 or 30000/1001"
        )
    return check_fps(Fraction(match[1]) / int(match[2] or 1))


def check_fps(fps: object) -> Fraction:
    """The rate as a fraction, in frames per second. Raises InvalidRequest unless it is exact and legal."""
    if isinstance(fps, float):
        near = f"nearest: {_legal_fps(Fraction(fps))}" if math.isfinite(fps) else "write it as Fraction(30000, 1001)"
        raise InvalidRequest(f"fps is {fps}, and a float is not exact", field="fps", hint=near)
    if isinstance(fps, bool) or not isinstance(fps, int | Fraction):
        raise InvalidRequest(f"fps is {_short(fps)}, not a rate", field="fps", hint="write it as Fraction(30000, 1001)")
    exact = Fraction(fps)
    if exact != (legal := _legal_fps(exact)):
        reason = f"rates go from {MIN_FPS} to {MAX_FPS}, in steps no finer than 1/{MAX_FPS_DENOMINATOR}"
        raise InvalidRequest(f"fps is {_short(exact)}; {reason}", field="fps", hint=f"nearest: {legal}")
    return exact


def _legal_fps(fps: Fraction) -> Fraction:
    return min(max(fps, MIN_FPS), MAX_FPS).limit_denominator(MAX_FPS_DENOMINATOR)


def check_prompt(prompt: object) -> str:
    """The prompt as it is. Raises InvalidRequest where it is empty, too long or not printable text."""
    if not isinstance(prompt, str):
        raise InvalidRequest(f"prompt is {type(prompt).__name__}, not text", field="prompt")
    if not prompt.strip():
        raise InvalidRequest(
            "prompt is empty", field="prompt", hint="say what should be seen: 'a red ball moving left'"
        )
    if len(prompt) > MAX_PROMPT:
        raise InvalidRequest(
            f"prompt has {len(prompt)} characters",
            field="prompt",
            hint=f"at most {MAX_PROMPT} characters are read",
        )
    for position, letter in enumerate(prompt):
        if unicodedata.category(letter) in ("Cc", "Cs"):  # control characters; halves of surrogate pairs
            raise InvalidRequest(
                f"prompt has the unprintable character U+{ord(letter):04X} at position {position}",
                field="prompt",
                hint="put a space in its place",
            )
    return prompt


def _integer(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        finite = isinstance(value, float) and math.isfinite(value)
        hint = f"nearest: {min(max(round(cast(float, value)), low), high)}" if finite else ""
        raise InvalidRequest(f"{name} is {_short(value)}, not a whole number", field=name, hint=hint)
    whole = index(value)  # numpy's integers included
    if not low <= whole <= high:
        near = min(max(whole, low), high)
        raise InvalidRequest(f"{name} is {_short(whole)}, not in {low} ... {high}", field=name, hint=f"nearest: {near}")
    return whole


def _short(value: object) -> str:
    """A value as an error message shows it; Python refuses to print whole numbers of thousands of digits."""
    if isinstance(value, int | Fraction) and max(abs(value.numerator), value.denominator) > 2**128:
        return "a number of very many digits"
    return reprlib.repr(value) if not isinstance(value, Fraction) else str(value)


def _frozen_options(options: object) -> FrozenMapping:
    if not isinstance(options, Mapping):
        raise InvalidRequest(f"options is {_short(options)}, not a mapping of names to values", field="options")
    return FrozenMapping({_option_name(name): _frozen(name, value) for name, value in options.items()})


def _option_name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidRequest(f"the option {name!r} is not called by text", field="options")
    return name


def _frozen(name: str, value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(_frozen(name, item) for item in value)
    if isinstance(value, str) or (isinstance(value, int) and abs(value) <= MAX_SEED):
        return value  # larger numbers than that few readers of JSON can carry
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise InvalidRequest(
        f"the option {name} is {_short(value)}",
        field=name,
        hint="options are text, finite numbers, truth values or lists of those",
    )


def _plain(value: object) -> object:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
