"""The shelf of metrics: one file is one number with its unit and its direction. Here: what a score is.

A metric is a module with a docstring, `UNIT`, `BETTER` ("higher" or "lower") and

    score(videos, prompts, references, world) -> Score

`videos` are uint8 clips (t, h, w, 3), one for each prompt; `references` are the world's own clips of the same
prompts, drawn from other scenes; `world` is the module that parses, draws and reads. A metric that compares
clips of one prompt sets `REPEATS = True`: an evaluation then asks it of prompts repeated under many seeds. One that
needs more than one video says so by `LEAST`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite, sqrt
from typing import Any

import numpy as np

from kinetograph.errors import InvalidVideo
from kinetograph.media import Frames
from kinetograph.request import FrozenMapping

Z = 1.959964  # standard deviations on either side of the mean that hold 95 % of a normal distribution
RESAMPLES = 1000
SOURCE = 20_240  # of the resamples: the same for ever, so that the same clips have the same interval


@dataclass(frozen=True, kw_only=True)
class Score:
    """A measured number, its 95 % interval from `low` to `high`, and the number of videos it rests on.

    `per_video` has one number for each video, where the metric has one; `parts` are finer scores by name.
    `unit` and `better` are set where they differ from the metric's own, and in a report everywhere.
    """

    value: float
    low: float
    high: float
    count: int
    per_video: tuple[float, ...] = ()
    parts: Mapping[str, "Score"] = field(default_factory=FrozenMapping)
    unit: str = ""
    better: str = ""

    def __post_init__(self) -> None:
        if not all(map(isfinite, (self.value, self.low, self.high))) or not self.low <= self.value <= self.high:
            raise ValueError(f"no score: {self.value} in {self.low} ... {self.high}")
        object.__setattr__(self, "parts", FrozenMapping(self.parts))

    def to_dict(self) -> dict[str, Any]:
        """As JSON would have it."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        parts = {name: part.to_dict() for name, part in self.parts.items()}
        return plain | {"per_video": [*self.per_video], "parts": parts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Score":
        """The opposite of `to_dict`."""
        parts = {name: cls.from_dict(part) for name, part in data["parts"].items()}
        return cls(**{**data, "per_video": tuple(data["per_video"]), "parts": parts})


# --- intervals ----------------------------------------------------------------------------------------------


def proportion(hits: Sequence[bool], **more: Any) -> Score:
    """The share of hits with Wilson's interval, which is right for few videos and near 0 and 1 too."""
    low, high = wilson(sum(hits), len(hits))
    return Score(value=sum(hits) / len(hits), low=low, high=high, count=len(hits), **more)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (E. B. Wilson 1927)."""
    p, spread = hits / count, Z * Z / count
    centre = (p + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * sqrt(p * (1 - p) / count + spread / (4 * count))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def mean(values: Sequence[float], **more: Any) -> Score:
    """The mean over videos with its bootstrap interval; the values become `per_video`."""
    table = np.asarray(values, np.float64)
    value, low, high = bootstrap(lambda places: float(table[places].mean()), len(table))
    kept = tuple(float(v) for v in table)
    return Score(value=value, low=low, high=high, count=len(table), per_video=kept, **more)


def bootstrap(
    statistic: Callable[[np.ndarray], float], count: int, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """Value and 95 % interval of a statistic of places 0 ... count - 1.

    The interval is the spread of the statistic under resampling, laid around the value: resamples contain
    doubles, which shifts distances between sets, and that shift is no part of the uncertainty (Efron &
    Tibshirani 1993, chapter 10). A single place has no spread: its interval is the value alone.
    """
    source = np.random.default_rng(SOURCE)
    value = statistic(np.arange(count))
    again = np.array([statistic(source.integers(count, size=count)) for _ in range(resamples)])
    below, above = np.quantile(again, (0.025, 0.975)) - again.mean()
    return value, value + min(float(below), 0.0), value + max(float(above), 0.0)


# --- what is scored -----------------------------------------------------------------------------------------


def check(videos: Sequence[Frames], prompts: Sequence[str], references: Sequence[Frames], least: int = 1) -> None:
    """Refuse what no metric can score: InvalidVideo for too few clips, odd numbers or what is no clip."""
    if len(videos) < least:
        raise InvalidVideo(f"{len(videos)} videos are too few to be scored", hint=f"at least {least}")
    if not len(videos) == len(prompts) == len(references):
        numbers = f"{len(videos)} videos, {len(prompts)} prompts and {len(references)} references"
        raise InvalidVideo(f"{numbers} do not belong together", hint="one prompt and one reference a video")
    for clip in (*videos, *references):
        if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3 or len(clip) < 2:
            raise InvalidVideo(
                f"{clip.dtype} {clip.shape} is no clip that can be scored", hint="uint8 (t, h, w, 3), t > 1"
            )
        if clip.shape != videos[0].shape:
            raise InvalidVideo(f"clips of {clip.shape} and {videos[0].shape} cannot be scored together")


def differences(one: Frames, other: Frames) -> np.ndarray:
    """Absolute differences of two arrays of pixels, in levels of 255, without the wrap-around of uint8."""
    return np.asarray(np.abs(one.astype(np.int16) - other))
