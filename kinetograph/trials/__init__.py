"""The shelf of trials: one file is one thing that an engine can be told beside a sentence, and how it is judged.

A trial is a module with a docstring, `NEEDS` (what a world must be able to do) and

    ask(world, rng, shape, folder, split) -> Asked       what is said in the request, and what would be right
    score(clips, asked, world) -> {name: Score}

Both are functions of worlds, which know exactly what is right: the edges of a scene, its depth, its skeletons, the
scene after an edit. Every trial has a score, or a part of one, that a wrong clip misses: the same clips under each
other's questions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from kinetograph import controls
from kinetograph.media import Frames
from kinetograph.metrics import Score, mean
from kinetograph.metrics.obeys import strangers
from kinetograph.video import Video

Seen = TypeVar("Seen")

# Of these, single pictures do not show what scenes are said to be: what is carried, what is not there yet, what grows.
HIDDEN = {"action": ("fetches",), "motion": ("appearing", "disappearing", "shrinking", "expanding")}


@dataclass(frozen=True)
class Shape:
    """How long, how high and how wide clips are, and how fast they are shown."""

    frames: int
    height: int
    width: int
    fps: Fraction


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question: the prompt and the settings of its request, the scene that is meant, and what would be right.

    Clips are shown at `fps` frames a second; `before` is the clip that an edit begins from.
    """

    prompt: str
    settings: Mapping[str, Any]
    scene: Any
    fps: float
    truth: Frames = field(repr=False, compare=False)
    before: Frames | None = field(default=None, repr=False, compare=False)


def sampled(world: ModuleType, rng: np.random.Generator, split: str, alone: bool = False) -> Any:
    """A scene whose single pictures can be read; with `alone`, one with a single performer."""
    while True:
        scene = world.sample(rng, split=split)
        said = world.attributes(scene)
        hidden = any(said.get(name) in values for name, values in HIDDEN.items())
        if not hidden and not (alone and any(name.startswith("partner") for name in said)):
            return scene


def drawn(world: ModuleType, scene: Any, shape: Shape, how: str = "draw") -> Frames:
    """What a world draws of a scene, in one of its ways."""
    clip: Frames = getattr(world, how)([scene], shape.frames, shape.height, shape.width)[0]
    return clip


def controlled(kind: str, world: ModuleType, rng: np.random.Generator, shape: Shape, folder: Path, split: str) -> Asked:
    """A question with a control clip: the truth of a scene, saved into a folder."""
    scene = sampled(world, rng, split)
    truth = drawn(world, scene, shape)
    shown = truth if kind == "edge" else drawn(world, scene, shape, kind)
    path = Video(shown, shape.fps).save(folder / f"{kind}-{rng.integers(2**63):016x}.npz")
    settings = controls.settings([controls.Control(kind=controls.kind(kind), path=str(path))])
    prompt = world.still_caption(scene, rng)
    return Asked(prompt=prompt, settings=settings, scene=scene, fps=float(shape.fps), truth=truth)


def judged(seen: Sequence[Seen], asked: Sequence[Asked], judge: Callable[[Seen, Asked], float], **more: Any) -> Score:
    """The mean of what a judge says of each clip, or of what was read of it before, once for all; and the same under
    each other's questions: the part `shuffled`."""
    score = mean([judge(some, one) for some, one in zip(seen, asked, strict=True)], **more)
    if len(seen) < 2:
        return score
    control = mean([judge(some, one) for some, one in zip(seen, strangers(asked), strict=True)])
    return replace(score, parts={**score.parts, "shuffled": replace(control, unit=score.unit, better="chance")})
