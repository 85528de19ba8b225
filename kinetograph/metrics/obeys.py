"""Does the clip show what the prompt says? The proportion of videos in which everything asked for can be read back.

A video obeys when `world.read(video)` agrees with `world.parse(prompt)` in every attribute that the prompt asks
for. A part for each attribute is the proportion among the videos whose prompt asks for it; `all` is the score
itself. The part `shuffled` is the control: the same videos under each other's prompts, which must be at chance
(an engine that ignores its prompts scores the same there as here; prompts that agree with each other raise it).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TypeVar

import numpy as np

from kinetograph.media import Frames
from kinetograph.metrics import SOURCE, Score, check, proportion

UNIT = "of videos"
BETTER = "higher"

Said = Mapping[str, str]  # attribute -> value
One = TypeVar("One")


def score(videos: Sequence[Frames], prompts: Sequence[str], references: Sequence[Frames], world: ModuleType) -> Score:
    """How many videos obey. Raises InvalidRequest for a prompt in which the world understands nothing."""
    check(videos, prompts, references)
    asked, seen = [world.parse(prompt) for prompt in prompts], [world.read(video) for video in videos]
    total = agreement(asked, seen)
    parts = {"all": total, **by_attribute(asked, seen)}
    if len(videos) > 1:
        others = strangers(asked)
        parts["shuffled"] = replace(agreement(others, seen), parts=by_attribute(others, seen), better="chance")
    return replace(total, parts=parts)


def with_pairs(total: Score) -> Score:
    """The score with a part `pairs`: of the videos two by two, how often both obey."""
    hits = [a * b == 1 for a, b in zip(total.per_video[::2], total.per_video[1::2])]
    part = replace(proportion(hits), unit="of pairs", better=BETTER)
    return replace(total, parts={**total.parts, "pairs": part})


def missed(video: Frames, prompt: str, world: ModuleType) -> tuple[str, ...]:
    """The attributes that a prompt asks for and the video does not show."""
    seen = world.read(video)
    return tuple(name for name, value in world.parse(prompt).items() if seen.get(name) != value)


def derangement(count: int) -> np.ndarray:
    """A permutation of 0 ... count - 1 that leaves nothing in its place: one cycle in an order drawn once."""
    order = np.random.default_rng(SOURCE).permutation(count)
    away = np.empty(count, int)
    away[order] = np.roll(order, 1)
    return away


def strangers(asked: Sequence[One]) -> list[One]:
    """Each other's questions, for a control: nobody has their own."""
    return [asked[place] for place in derangement(len(asked))]


def agreement(asked: Sequence[Said], seen: Sequence[Said]) -> Score:
    """In how many everything that is asked for is seen."""
    hits = [all(s.get(name) == value for name, value in a.items()) for a, s in zip(asked, seen, strict=True)]
    return proportion(hits, per_video=tuple(map(float, hits)))


def by_attribute(asked: Sequence[Said], seen: Sequence[Said]) -> dict[str, Score]:
    """A score for each attribute that some prompt asks for."""
    names = dict.fromkeys(name for a in asked for name in a)
    pairs = [*zip(asked, seen, strict=True)]
    return {name: proportion([s.get(name) == a[name] for a, s in pairs if name in a]) for name in names}
