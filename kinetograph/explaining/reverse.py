"""Noise becomes a clip: what the sampler holds after some of its steps, beside what the network makes of it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from kinetograph import media
from kinetograph.engine import Engine, EngineInfo, OnProgress, describe, ignore, stamped, warm
from kinetograph.errors import InvalidRequest
from kinetograph.explaining import numbers, plates
from kinetograph.explaining.forward import spread, visible
from kinetograph.media import Frames
from kinetograph.request import VideoRequest
from kinetograph.video import Video

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kinetograph.neural.sampling import Level, OnStep

ROWS, COLUMNS = 7, 4  # of the sheet, and of each of its halves


class Watched(Protocol):
    """An engine whose steps can be watched."""

    def levels(self, request: VideoRequest) -> "Sequence[Level]":
        """The levels of noise that the request's steps go down, the noisiest first."""
        ...

    def watch(self, request: VideoRequest, on_progress: OnProgress, on_step: "OnStep") -> Video:
        """Like `Engine.generate`, telling of every step what the sampler holds and what the network makes of it, as
        pixels; perhaps at first of one frame alone."""
        ...


@dataclass
class Glimpses:
    """What is seen of a sampler at work: after some of its steps, the noisy clip and the clean estimate made of it."""

    levels: "Sequence[Level]"
    wanted: frozenset[int]  # after how many steps
    noisy: dict[int, Frames] = field(default_factory=dict)
    clean: dict[int, Frames] = field(default_factory=dict)

    def on_step(self, index: int, count: int, x: "Tensor", clean: "Tensor") -> None:
        """An estimate that is told with a step was made of what the step before it left."""
        done = index + 1
        if index in self.wanted:  # of the frames that there were
            self.clean[index] = visible(clean, self.levels[-1])[: len(self.noisy[index])]
        if done in self.wanted:
            self.noisy[done] = visible(x, self.levels[done])
        if done == count:
            self.clean[done] = self.noisy[done]  # what is clean is its own estimate


def show(
    sheet: Path,
    clip: Path,
    *,
    prompt: str = "a brown dog in the snow",
    engine: str = "zero",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    on_progress: OnProgress = ignore,
) -> None:
    """Make one clip with a diffusion engine, and show how it comes about.

    Raises InvalidRequest for an engine that cannot be watched, and what `describe` and generating raise.
    """
    info = diffusion(engine, "steps")
    request = info.request(prompt, seed=seed, options=options)
    loaded = warm.get(engine, device, info.weights)
    start = time.perf_counter()
    glimpses = _watch(loaded, request, on_progress)
    seconds = time.perf_counter() - start
    seen = sorted(glimpses.noisy)
    rows = [_side_by_side(glimpses.noisy[done], glimpses.clean[done]) for done in seen]
    labels = [
        f"after {done} of {len(glimpses.levels) - 1} steps:   {numbers.line(glimpses.levels[done])}" for done in seen
    ]
    labels[0] += f"   left: {prompt}, still noisy; right: what the network takes it for"
    media.write_contact_sheet(sheet, rows, labels, scale=max(1, 128 // request.height))
    played = [
        plates.plate([x, clean], glimpses.levels[done], glimpses.levels, f"after step {done}")
        for done in seen
        for x, clean in zip(glimpses.noisy[done], glimpses.clean[done], strict=True)
    ]
    video = Video(np.stack(played), request.fps)  # a model drew it, so it carries the mark of what is AI-generated
    made = stamped(video, f"explain:{engine}", request, loaded, seconds, trained=info.trained)
    made.save(clip, enlarge=1, overwrite=True)


def diffusion(engine: str, option: str) -> EngineInfo:
    """What an engine can do, if it has this option. Raises InvalidRequest where it has not."""
    info = describe(engine)
    if option not in info.Options.model_fields:
        hint = "name one that has: zero or flow"
        raise InvalidRequest(
            f"the engine {engine} has no {option}: it is no diffusion model", field="engine", hint=hint
        )
    return info


def _watch(engine: Engine, request: VideoRequest, on_progress: OnProgress) -> Glimpses:
    if not hasattr(engine, "watch"):
        raise InvalidRequest("this engine cannot be watched at work", field="engine", hint="zero and flow can")
    watched = cast(Watched, engine)
    levels = watched.levels(request)
    steps = len(levels) - 1
    glimpses = Glimpses(levels, frozenset(spread(range(1, steps + 1), min(ROWS, steps))))
    watched.watch(request, on_progress, glimpses.on_step)
    return glimpses


def _side_by_side(noisy: Frames, clean: Frames) -> Frames:
    """A row of the sheet: a few frames of each, and a gap between."""
    places = spread(range(len(noisy)), min(COLUMNS, len(noisy)))
    gap = np.full_like(noisy[:1], 255)
    return np.concatenate([noisy[places], gap, clean[places]])
